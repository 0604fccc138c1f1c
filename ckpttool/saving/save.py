"""``ckpttool.save``: a checkpoint that is either the old one or the new one, complete, durable and sealed."""

from __future__ import annotations

import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import cast

from ckpttool.errors import MissingExtra, UsageError, WriteFailed, printable
from ckpttool.manifest import FileSeal, Malformed, Manifest, block_size, read_manifest, sidecar, to_json
from ckpttool.saving.lock import turn
from ckpttool.saving.paths import local_path
from ckpttool.saving.seals import PassingSeals
from ckpttool.saving.stream import ProvedStream
from ckpttool.version import __version__
from ckpttool.writing.durable import Replacement, place, prepared, replacing, settle
from ckpttool.writing.endings import in_words, until_ended


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save did: where, how many bytes, how many seconds, and the manifest that stands beside it.

    ``manifest`` is None where none was asked for, and where the disk took the checkpoint and no manifest any more.
    """

    path: Path
    nbytes: int
    seconds: float
    manifest: Path | None


def save(obj: object, path: str | os.PathLike[str], *, manifest: bool = True) -> Saved:
    """Save an object as ``torch.save`` does, so that no failure loses what ``path`` held before.

    Written to a temporary file in the same folder, every byte read back and compared with what was meant, flushed to
    the disk, renamed, the folder flushed. With ``manifest`` the digests of every tensor, as they were in memory,
    and of every block go to ``PATH.manifest.json``, which ``ckpttool verify`` and ``ckpttool.load`` check. A link is
    followed. Of several writers of one path the last one wins, each with its manifest.

    Raises ``WriteFailed`` (disk full, read-only folder) with everything as it was, save where the very last flush, that
    of the folder, fails: then the new file has its name, and a power cut may still take it back. SIGTERM leaves
    everything as it was and ends the process. ``UsageError`` for what pickle does not take; ``Locked`` where another
    writer has been giving this path its file for a minute.

    A new file costs what ``torch.save`` and ``fsync`` cost: digests are made and bytes read back while the processor's
    cache has them, and the disk begins while ``torch.save`` still writes; replacing one costs four small flushes more.
    On network file systems the rename is atomic for the server, and readers that hold the old file open may see
    a stale handle.
    """
    name = local_path(path, "save")
    torch = torch_module()
    start = time.perf_counter()
    with in_words(name), until_ended(), ThreadPoolExecutor(2, "save") as pool, ExitStack() as alone:
        with replacing(name) as file:
            seals = PassingSeals(torch, obj, pool) if manifest else None
            stream = ProvedStream(file, block_size(_weight(obj)), seals)
            blocks = _write_state(torch, obj, stream)
            facts = os.fstat(file.fileno())
            made, early = None, None
            if seals is not None:
                seal = FileSeal(file.target.name, facts.st_size, facts.st_mtime_ns, stream.block, blocks)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                made = Manifest((seal,), seals.made(), f"ckpttool {__version__}", now)
                early = _prepare(alone, file.target, made)
            settle(file, *([early] if early is not None else []), pool=pool)  # before others have to wait
            alone.enter_context(turn(file.target))
            is_new = not file.target.exists()
            alone.callback(_take_back, file.target)
            if early is not None and _is_alone(file.target):
                place(early)
            else:
                _announce(file.target, made)
        if made is not None and not is_new:
            with suppress(WriteFailed):  # what was announced fits the new file too
                _write(file.target, made)
    beside = sidecar(str(file.target))
    sealed = beside if made is not None and os.path.exists(beside) else None  # noqa: PTH110 - never raises
    return Saved(file.target, facts.st_size, time.perf_counter() - start, sealed)


def _weight(obj: object, depth: int = 8) -> int:
    """Bytes of the tensors in plain containers, ties counted twice: what a choice needs, and no more."""
    if isinstance(obj, dict):
        return sum(_weight(value, depth - 1) for value in obj.values()) if depth else 0
    if isinstance(obj, (list, tuple)):
        return sum(_weight(value, depth - 1) for value in obj) if depth else 0
    nbytes = getattr(obj, "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0


def _write_state(torch: ModuleType, obj: object, stream: ProvedStream) -> tuple[str, ...]:
    """The digests of the blocks that were written and read back."""
    try:
        torch.save(obj, stream)
        return stream.finish()
    except Exception as error:
        cause = stream.refused or _interrupt(error)
        if cause is not None:
            raise cause from None
        if isinstance(error, (pickle.PicklingError, AttributeError, TypeError, RecursionError)):
            reason = printable(str(error)) or type(error).__name__
            raise UsageError(f"the object holds what cannot be saved: {reason}") from error
        raise


def _interrupt(error: BaseException) -> BaseException | None:
    """What ended ``torch.save`` from outside; it goes on to write the archive's end, and fails with that."""
    found: BaseException | None = error
    while found is not None and isinstance(found, Exception):
        found = found.__context__
    return found


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


# --- the manifest ----------------------------------------------------------------------------------------


def _is_alone(target: Path) -> bool:
    """Whether neither a file nor a manifest of one stands there, so that no order of names can mislead."""
    return not target.exists() and not sidecar(str(target)).exists()


def _prepare(alone: ExitStack, target: Path, made: Manifest) -> Replacement | None:
    """The manifest of a file that is new, written and ready to be flushed beside it; else None."""
    if not _is_alone(target):
        return None
    file = alone.enter_context(prepared(sidecar(str(target))))
    _put(made, file)
    return file


def _announce(target: Path, made: Manifest | None) -> None:
    """Before the rename: a manifest that fits the new file and, should the rename not come, the old one.

    No manifest is better than one that speaks of another file.
    """
    before = _standing(target)
    if made is None or (before is None and target.exists()):
        sidecar(str(target)).unlink(missing_ok=True)
    else:
        _write(target, replace(made, previous=before))


def _take_back(target: Path) -> None:
    """No manifest stays of a file that did not come."""
    with suppress(OSError):
        if not target.exists():
            sidecar(str(target)).unlink(missing_ok=True)


def _standing(target: Path) -> Manifest | None:
    """The manifest that speaks of the file that is there: after a kill it is the one before the latest."""
    try:
        facts = target.stat()
        latest = read_manifest(sidecar(str(target)))
    except (OSError, Malformed):
        return None
    known = [replace(latest, previous=None), *([latest.previous] if latest.previous else [])]
    same_time = [m for m in known if _seal_of(m, target) == (facts.st_size, facts.st_mtime_ns)]
    if same_time or len(known) == 1:
        return (same_time or known)[0]
    return next((m for m in known if _holds(m, target)), known[0])


def _seal_of(manifest: Manifest, target: Path) -> tuple[int, int]:
    return next(((f.nbytes, f.mtime_ns) for f in manifest.files if f.name == target.name), (-1, -1))


def _holds(manifest: Manifest, target: Path) -> bool:
    """Whether the blocks of a file are those of its seal; for a copy that did not keep its time."""
    from ckpttool.measure.seals import block_digests

    seals = [f for f in manifest.files if f.name == target.name]
    return bool(seals) and block_digests(str(target), seals[0].block) == seals[0].blocks


def _write(target: Path, manifest: Manifest) -> None:
    with replacing(sidecar(str(target))) as file:
        _put(manifest, file)


def _put(manifest: Manifest, file: Replacement) -> None:
    text = to_json(manifest).encode()
    file.write(text)
    file.flush()
    if file.path.read_bytes() != text:
        raise WriteFailed(file.target, "was read back otherwise than it was written; check the disk")
