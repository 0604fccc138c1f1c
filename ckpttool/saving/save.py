"""``ckpttool.save``: a checkpoint that is either the old one or the new one, complete, durable and sealed."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import cast

from ckpttool.errors import MissingExtra, Unreadable
from ckpttool.manifest import (
    FileSeal,
    Malformed,
    Manifest,
    TensorSeal,
    block_size,
    from_json,
    sidecar,
    to_json,
)
from ckpttool.model import Checkpoint
from ckpttool.writing.durable import Replacement, flush_to_disk, replacing


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save did: where, how many bytes, how many seconds, and the manifest that stands beside it."""

    path: Path
    nbytes: int
    seconds: float
    manifest: Path | None


def save(obj: object, path: str | os.PathLike[str], *, manifest: bool = True) -> Saved:
    """Save an object as ``torch.save`` does, so that no failure loses what ``path`` held before.

    Written to a temporary file in the same folder, its structure read back, flushed to the disk, renamed, the folder
    flushed. With ``manifest`` the digests of every tensor, as they were in memory, and of every block go to
    ``PATH.manifest.json``, which ``ckpttool verify`` and ``ckpttool.load`` check. A link is followed. Raises
    ``WriteFailed`` (disk full, read-only folder, a kill by SIGTERM) with everything as it was.

    Costs what ``torch.save`` and ``fsync`` cost; the digests are made while the disk works. On network file systems
    the rename is atomic for the server, and readers that hold the old file open may see a stale handle.
    """
    torch = torch_module()
    start = time.perf_counter()
    with replacing(path) as file:
        _write_state(torch, obj, file)
        made = _checked(file, obj, manifest)
        nbytes = file.path.stat().st_size
        _announce(file.target, made)
    if made is not None:
        _write(file.target, made)
    beside = sidecar(str(file.target)) if made is not None else None
    return Saved(file.target, nbytes, time.perf_counter() - start, beside)


class _Tap:
    """What ``torch.save`` writes to: it turns what the system refuses into an error of its own, and we want ours."""

    def __init__(self, file: Replacement) -> None:
        self.file = file
        self.refused: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.refused = self.refused or error
            raise

    def flush(self) -> None:
        self.file.flush()


def _write_state(torch: ModuleType, obj: object, file: Replacement) -> None:
    tap = _Tap(file)
    try:
        torch.save(obj, tap)
        file.flush()
    except Exception:
        if tap.refused is not None:
            raise tap.refused from None
        raise


def torch_module() -> ModuleType:
    """torch: whoever saves a state dict has imported it; for other objects it is needed all the same."""
    found = sys.modules.get("torch")
    if found is not None:
        return found
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "train") from error
    return cast(ModuleType, torch)


def _checked(file: Replacement, obj: object, manifest: bool) -> Manifest | None:
    """Flush the temporary file while digests are made and its structure is read back."""
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as pool:
        flushed = pool.submit(_flush, file.path)
        made = _manifest(file, obj) if manifest else None
        _read_back(file.path)
        flushed.result()
    return made


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush_to_disk(descriptor)
    finally:
        os.close(descriptor)


def _read_back(path: Path) -> Checkpoint:
    """The headers of what was written; raises ``Unreadable`` where they are not what a save writes."""
    from ckpttool.formats import describe

    found = describe(path, audit=True)
    bad = [d for d in found.damage if d.rule in _BROKEN]
    if found.kind or bad:
        raise Unreadable(str(path), f"read back damaged: {found.kind or bad[0].message}")
    return found


_BROKEN = frozenset(
    "truncated missing-record header-mismatch descriptor-mismatch directory-damaged pickle-malformed "
    "storage-missing storage-size duplicate-record overlapping-records".split()
)


def _manifest(file: Replacement, obj: object) -> Manifest:
    from ckpttool.measure.seals import block_digests
    from ckpttool.version import __version__

    facts = file.path.stat()
    block = block_size(facts.st_size)
    blocks = block_digests(str(file.path), block)
    seal = FileSeal(file.target.name, facts.st_size, facts.st_mtime_ns, block, blocks)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest((seal,), _tensors(obj), f"ckpttool {__version__}", now)


def _tensors(obj: object) -> tuple[TensorSeal, ...]:
    """Digests of the tensors in memory: what is on the disk is compared with what was meant."""
    from ckpttool.measure.seals import tensor_seals
    from ckpttool.memory import describe_state

    checkpoint, source = describe_state(obj, stateful=False)
    return tensor_seals(checkpoint, sources=(source,))


# --- the manifest ----------------------------------------------------------------------------------------


def _announce(target: Path, made: Manifest | None) -> None:
    """Before the rename: a manifest that fits the new file and, should the rename not come, the old one.

    No manifest is better than one that speaks of another file.
    """
    place = sidecar(str(target))
    try:
        before = from_json(place.read_bytes()) if target.exists() else None
    except (OSError, Malformed):
        before = None
    if made is None or (before is None and target.exists()):
        place.unlink(missing_ok=True)
    else:
        _write(target, replace(made, previous=None if before is None else replace(before, previous=None)))


def _write(target: Path, manifest: Manifest) -> None:
    with replacing(sidecar(str(target))) as file:
        file.write(to_json(manifest).encode())
