"""What became of a sealed checkpoint: its manifest beside the digests of now. Judged by the rules on seals."""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from ckpttool.errors import CkpttoolError
from ckpttool.manifest import (
    INSIDE_KEY,
    INSIDE_RECORD,
    LIMIT,
    SIDECAR,
    FileSeal,
    Malformed,
    Manifest,
    Sealed,
    from_json,
    manifest_for,
    read_manifest,
)
from ckpttool.model import Checkpoint, Span
from ckpttool.source import open_source

TREE = "everything but tensors"
"""What the one file of a manifest inside stands for: a torch archive's pickle, the other metadata of safetensors."""


def examine_seal(checkpoint: Checkpoint, path: str, executor: Executor | None = None) -> Sealed | None:
    """The manifest that stands beside a checkpoint or in it, and what its files hold now; None where there is none.

    One beside goes first: it covers every byte. Reads every sealed file once, and the tensors once more where a
    file is not what it was or the manifest stands inside.
    """
    place = None if "://" in path else manifest_for(path)
    try:
        if place is None:
            return _inside(checkpoint, executor)
        manifest = _about(read_manifest(place), path, place)
    except (Malformed, OSError, CkpttoolError) as error:
        return Sealed(str(place or path), None, error=str(error))
    if not manifest.files:
        return None
    found = _compared(checkpoint, str(place), manifest, place.parent, executor)
    if manifest.previous is not None and len(found.intact) < len(manifest.files):
        older = _compared(checkpoint, str(place), manifest.previous, place.parent, executor)
        found = older if len(older.intact) == len(manifest.previous.files) else found
    return replace(_with_tensors(found, checkpoint, executor), extra=_extra(found, path, place))


def has_seal(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a manifest stands beside a checkpoint or in it."""
    return "://" not in path and (manifest_for(path) is not None or _stands_inside(checkpoint))


# --- beside ----------------------------------------------------------------------------------------------


def _about(manifest: Manifest, path: str, place: Path) -> Manifest:
    """What a folder's manifest says of one single file in it; all of it for whatever is more than a file."""
    names = {Path(path).name, Path(os.path.realpath(path)).name}
    own = any(place.name == f"{name}{SIDECAR}" for name in names)
    if own or Path(path).is_dir() or path.endswith(".index.json"):
        return manifest
    files = tuple(file for file in manifest.files if file.name in names)
    return replace(manifest, files=files, previous=None)


def _compared(checkpoint: Checkpoint, where: str, manifest: Manifest, base: Path, executor: Executor | None) -> Sealed:
    from ckpttool.measure import seals

    blocks: dict[str, tuple[str, ...]] = {}
    lengths: dict[str, int] = {}
    hashes: dict[str, str] = {}
    touched: set[str] = set()
    for file in manifest.files:
        try:
            place = _place(base, file)
            facts = place.stat()
            lengths[file.name] = facts.st_size
            if facts.st_mtime_ns != file.mtime_ns:
                touched.add(file.name)
            blocks[file.name] = seals.block_digests(str(place), file.block, executor=executor)
            if file.sha256:
                hashes[file.name] = seals.sha256(str(place))
        except (CkpttoolError, OSError, ValueError):  # NUL and lone surrogates are no names
            lengths.pop(file.name, None)
    paths = _paths(checkpoint, base, lengths)
    return Sealed(where, manifest, str(base), blocks, lengths, frozenset(touched), hashes, paths=paths)


def _place(base: Path, file: FileSeal) -> Path:
    """A sealed file's place; raises ``ValueError`` for a name that leads out of the checkpoint's folder."""
    name, on_windows = Path(file.name), PureWindowsPath(file.name)
    if name.is_absolute() or ".." in name.parts or on_windows.drive or on_windows.root or not name.name:
        raise ValueError("leads out of the folder")
    return base / name


def _paths(checkpoint: Checkpoint, base: Path, names: dict[str, int]) -> dict[str, str]:
    """The checkpoint's own files, as it names them, with their names in the manifest."""
    real = {os.path.realpath(base / name): name for name in names}
    own = {file: os.path.realpath(file) for file in {*checkpoint.files, checkpoint.source} if "://" not in file}
    return {file: real[place] for file, place in own.items() if place in real}


def _with_tensors(found: Sealed, checkpoint: Checkpoint, executor: Executor | None) -> Sealed:
    assert found.manifest is not None
    if len(found.intact) == len(found.manifest.files):
        return found
    from ckpttool.measure.seals import tensor_seals

    return replace(found, tensors={t.key: t for t in tensor_seals(checkpoint, executor=executor)})


def _extra(found: Sealed, path: str, place: Path) -> tuple[str, ...]:
    """Files in a sealed folder that its manifest does not have."""
    from ckpttool.verbs.seal import files_below

    whole = Path(path).is_dir() or path.endswith(".index.json")
    if not whole or place.name != f"ckpttool{SIDECAR}" or found.manifest is None:
        return ()
    known = {file.name for file in found.manifest.files}
    there = sorted(files_below(place.parent))
    return tuple(name for name in there if name not in known and not name.endswith(SIDECAR))


# --- inside ----------------------------------------------------------------------------------------------


def tree_seal(checkpoint: Checkpoint) -> FileSeal:
    """The seal of all in a torch archive or safetensors file that is no tensor and that a manifest inside covers."""
    from ckpttool.measure.seals import bytes_digest

    data = _tree(checkpoint)
    return FileSeal(TREE, len(data), 0, max(len(data), 1 << 20), (bytes_digest(data),) if data else ())


def _tree(checkpoint: Checkpoint) -> bytes:
    if checkpoint.format == "safetensors":
        return json.dumps(checkpoint.metadata.get("metadata") or {}, sort_keys=True).encode()
    span = next((e.span for e in checkpoint.extents if e.name.endswith("/data.pkl")), None)
    return b"" if span is None else _bytes(span)


def _bytes(span: Span) -> bytes:
    source = open_source(span.source)
    try:
        return source.read(span.start, span.nbytes)
    finally:
        source.close()


def _stands_inside(checkpoint: Checkpoint) -> bool:
    return checkpoint.metadata.get("sealed_inside") is True or _record(checkpoint) is not None


def _record(checkpoint: Checkpoint) -> Span | None:
    if checkpoint.format != "torch-zip":
        return None
    return next((e.span for e in checkpoint.extents if e.name.endswith(f"/{INSIDE_RECORD}")), None)


def _inside(checkpoint: Checkpoint, executor: Executor | None) -> Sealed | None:
    from ckpttool.measure.seals import tensor_seals

    if not _stands_inside(checkpoint):
        return None
    manifest = from_json(_text_inside(checkpoint))
    if len(manifest.files) != 1 or manifest.files[0].name != TREE or manifest.previous is not None:
        raise Malformed("not one that stands inside a checkpoint")
    now = tree_seal(checkpoint)
    tensors = {t.key: t for t in tensor_seals(checkpoint, executor=executor)}
    where = f"{checkpoint.source} (inside)"
    return Sealed(
        where, manifest, "", {TREE: now.blocks}, {TREE: now.nbytes}, tensors=tensors,
        paths={checkpoint.source: TREE}, inside=True,
    )  # fmt: skip


def _text_inside(checkpoint: Checkpoint) -> bytes:
    span = _record(checkpoint)
    if span is not None:
        if span.nbytes > LIMIT:
            raise Malformed(f"{span.nbytes} bytes, and {LIMIT} is the limit")
        return _bytes(span)
    source = open_source(checkpoint.source)
    try:
        length = int.from_bytes(source.read(0, 8), "little")
        header = json.loads(source.read(8, min(length, LIMIT)))
        return str(header["__metadata__"][INSIDE_KEY]).encode()
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Malformed(str(error)[:120]) from error
    finally:
        source.close()
