"""A draft becomes files: written beside, read back, compared with what was meant, and only then put in place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

from ckpttool.draft import Copied, Draft
from ckpttool.errors import WriteFailed, printable
from ckpttool.formats import collector_paused, describe
from ckpttool.frozen import dataclass
from ckpttool.model import Span
from ckpttool.writing.durable import Replacement, backup_name, publishing, replacing
from ckpttool.writing.losses import Loss
from ckpttool.writing.outputs import File, Format, Output, format_for, output_of
from ckpttool.writing.recording import Recorder, compare_copies, read_back
from ckpttool.writing.reserving import room
from ckpttool.writing.sharded import INDEX

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, in bytes. ``copied`` came from files unseen; ``computed`` went through this process.

    All that was computed has been read back and compared with its checksums; ``compared`` are bytes of copies
    that were compared with their origins, 0 unless that was asked for. ``backup`` is where the old file is.
    """

    path: str
    format: Format
    files: tuple[str, ...]
    nbytes: int
    copied: int
    computed: int
    compared: int
    not_carried: tuple[Loss, ...]
    backup: str | None = None


@collector_paused()
def apply(
    draft: Draft,
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word that users say
    overwrite: bool = False,
    backup: bool | None = None,
    verify: bool = False,
    max_shard_size: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write a draft to a file or a folder; whatever fails, what was there is as it was.

    ``format`` is one of ``outputs.FORMATS``; by default the name says it. A file that is there is replaced only with
    ``overwrite``; ``backup`` keeps it beside as ``.bak``, by default where it is one of the draft's own files. A
    folder, or a set of shards, is never replaced. Before anything gets its name the output is described and
    compared with the draft, and what was computed is read back; ``verify`` compares copied bytes too.

    Raises ``WriteFailed``, ``UsageError`` and ``Unreadable``. Costs a copy, ``verify`` one more read of both sides.
    """
    source = draft.checkpoint
    output = output_of(draft, format_for(destination, format, source.format), destination, max_shard_size)
    steps = _Steps(progress, output.nbytes * (2 if verify else 1))
    checks = _Checks(verify, _recorded(draft) if verify else {})
    if output.files[0].name:
        return _apply_set(output, Path(destination), checks, steps)
    keep = _is_own(draft, destination) if backup is None else backup
    file = output.files[0]
    with replacing(
        destination, keep=backup_name(destination) if keep else None, overwrite=overwrite, expected=output.nbytes
    ) as out:
        written = _write(file, out, os.fspath(destination), checks, steps)
    kept = None if out.kept is None else str(out.kept)
    path = os.fspath(destination)
    return replace(written, path=path, format=output.format, not_carried=output.losses, backup=kept)


@dataclass(frozen=True, slots=True)
class _Checks:
    """Whether copies are compared, and the checksums that files have recorded of ranges."""

    copies: bool
    recorded: Mapping[Span, int]


def _recorded(draft: Draft) -> dict[Span, int]:
    found: dict[Span, int] = {}
    for content in draft.contents:
        if isinstance(content, Copied) and len(content.spans) == 1 and content.inflates_to is None:
            checksum = content.checksum
            if checksum is not None and checksum.algorithm == "crc32":
                found[content.spans[0]] = checksum.value
    return found


class _Steps:
    """Progress in bytes done and bytes in all."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        if self._report is not None:
            self._report(min(self._done, self._total), self._total)


def _is_own(draft: Draft, destination: str | os.PathLike[str]) -> bool:
    """Whether the destination is one of the files that the draft takes its bytes from."""
    for name in draft.checkpoint.files or (draft.checkpoint.source,):
        with contextlib.suppress(OSError, ValueError):
            if Path(name).samefile(destination):
                return True
    return False


# --- one file ----------------------------------------------------------------------------------------------


def _write(file: File, out: Replacement, where: str, checks: _Checks, steps: _Steps) -> Written:
    """Write and check one file that has no name yet."""
    sink = Recorder(out, steps)
    with sink, room(out.fileno(), file.nbytes):
        file.write(sink)
        out.flush()
    _check(file, out.path, where)
    read_back(out.path, sink.runs, where)
    if checks.copies:
        compare_copies(out.path, sink.copies, where, checks.recorded, steps)
    compared = sink.copied if checks.copies else 0
    return Written(where, "torch", (where,), sink.position, sink.copied, sink.written, compared, ())


def _check(file: File, path: Path, where: str) -> None:
    if file.check is None:
        return
    found = describe(path)
    damage = [one.message for one in found.damage if one.rule != "in-progress"]
    why = found.kind or file.check(found) or (damage[0] if damage and found.root is None else "")
    if why:
        raise WriteFailed(
            where, f"what was written does not read back as meant: {printable(why)}; nothing was replaced"
        )


# --- several files -----------------------------------------------------------------------------------------


def _apply_set(output: Output, destination: Path, checks: _Checks, steps: _Steps) -> Written:
    is_index = os.fspath(destination).endswith(INDEX)
    folder = destination.parent if is_index else destination
    with _beside(folder, output) if is_index else _inside(destination, output) as put:
        # From the last file to the first: where they get their names one by one, the index is to be the last.
        parts = [_put_one(file, put, folder, checks, steps) for file in reversed(output.files)]
    return Written(
        str(destination),
        output.format,
        tuple(str(folder / file.name) for file in output.files),
        sum(part.nbytes for part in parts),
        sum(part.copied for part in parts),
        sum(part.computed for part in parts),
        sum(part.compared for part in parts),
        output.losses,
    )


Put = Callable[[File], AbstractContextManager[Replacement]]


def _put_one(file: File, put: Put, folder: Path, checks: _Checks, steps: _Steps) -> Written:
    with put(file) as out:
        return _write(file, out, str(folder / file.name), checks, steps)


@contextlib.contextmanager
def _inside(destination: Path, output: Output) -> Iterator[Put]:
    """Files of a new folder, which gets its name when all of them are there."""
    with publishing(destination, expected=output.nbytes) as folder:
        yield lambda file: replacing(folder / file.name)


@contextlib.contextmanager
def _beside(folder: Path, output: Output) -> Iterator[Put]:
    """Files of a folder that is there. Names are given in the reverse of the order of writing, all at the end.

    Where one cannot be given, those given before are taken back.
    """
    taken = [folder / file.name for file in output.files if (folder / file.name).exists()]
    if taken:
        why = "exists already; a set of shards is never replaced, choose another name or folder"
        raise WriteFailed(taken[0], why)
    made: list[Replacement] = []
    try:
        with ExitStack() as waiting:

            def put(file: File) -> AbstractContextManager[Replacement]:
                there = replacing(folder / file.name, overwrite=False, expected=file.nbytes)
                made.append(waiting.enter_context(there))
                return contextlib.nullcontext(made[-1])

            yield put
    except BaseException:
        for out in made:
            if out.placed:
                out.target.unlink(missing_ok=True)
        raise
