"""What became of a sealed checkpoint: its manifest beside the digests of now. Judged by the rules on seals."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from ckpttool.errors import CkpttoolError
from ckpttool.manifest import SIDECAR, FileSeal, Malformed, Manifest, Sealed, manifest_for, read_manifest
from ckpttool.model import Checkpoint


def examine_seal(checkpoint: Checkpoint, path: str, executor: Executor | None = None) -> Sealed | None:
    """The manifest that stands beside a checkpoint and what its files hold now; None where there is no manifest.

    Reads every sealed file once, and the tensors once more where a file is not what it was.
    """
    place = None if "://" in path else manifest_for(path)
    if place is None:
        return None
    try:
        manifest = _about(read_manifest(place), path, place)
    except (Malformed, OSError) as error:
        return Sealed(str(place), None, error=str(error))
    if not manifest.files:
        return None
    base = place.parent
    found = _compared(str(place), manifest, base, executor)
    if manifest.previous is not None and len(found.intact) < len(manifest.files):
        older = _compared(str(place), manifest.previous, base, executor)
        found = older if len(older.intact) == len(manifest.previous.files) else found
    return _with_tensors(found, checkpoint, executor)


def _about(manifest: Manifest, path: str, place: Path) -> Manifest:
    """What a folder's manifest says of one single file in it; all of it for whatever is more than a file."""
    name = Path(path).name
    if place.name == f"{name}{SIDECAR}" or Path(path).is_dir() or name.endswith(".index.json"):
        return manifest
    files = tuple(file for file in manifest.files if file.name == name)
    return replace(manifest, files=files, previous=None)


def _compared(where: str, manifest: Manifest, base: Path, executor: Executor | None) -> Sealed:
    from ckpttool.measure import seals

    blocks: dict[str, tuple[str, ...]] = {}
    lengths: dict[str, int] = {}
    hashes: dict[str, str] = {}
    touched: set[str] = set()
    for file in manifest.files:
        place = _inside(base, file)
        if place is None:
            continue
        try:
            facts = place.stat()
            lengths[file.name] = facts.st_size
            if facts.st_mtime_ns != file.mtime_ns:
                touched.add(file.name)
            blocks[file.name] = seals.block_digests(str(place), file.block, executor=executor)
            if file.sha256:
                hashes[file.name] = seals.sha256(str(place))
        except (CkpttoolError, OSError):
            lengths.pop(file.name, None)
    return Sealed(where, manifest, str(base), blocks, lengths, frozenset(touched), hashes)


def _inside(base: Path, file: FileSeal) -> Path | None:
    """A sealed file's place; None for a name that leads out of the checkpoint's folder."""
    name = Path(file.name)
    return None if name.is_absolute() or ".." in name.parts else base / name


def _with_tensors(found: Sealed, checkpoint: Checkpoint, executor: Executor | None) -> Sealed:
    assert found.manifest is not None
    if len(found.intact) == len(found.manifest.files):
        return found
    from ckpttool.measure.seals import tensor_seals

    return replace(found, tensors={t.key: t for t in tensor_seals(checkpoint, executor=executor)})
