"""``convert``: a checkpoint in another format, and exactly what that format cannot carry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from ckpttool.errors import ExitCode, printable
from ckpttool.folding import fold
from ckpttool.frozen import dataclass
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Json
from ckpttool.report import Block, Deferred, Details, Facts, Report, Table, Text
from ckpttool.units import plural, size
from ckpttool.verbs.beside import fate
from ckpttool.verbs.writable import destination_of, sections_of, writable
from ckpttool.writing.apply import Written, apply
from ckpttool.writing.losses import Loss
from ckpttool.writing.outputs import Output, format_for, output_of
from ckpttool.writing.sharded import size_of

ROWS = 40
"""Folded lines of what is not carried that people are shown."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a conversion came to; ``written`` is None where nothing was."""

    source: Checkpoint
    output: Output
    written: Written | None
    notes: tuple[str, ...]
    refused: bool = False


def convert(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,  # noqa: A002 - the word that users say
    sections: Sequence[str] = (),
    max_shard_size: str | int | None = None,
    in_place: bool = False,
    force: bool = False,
    backup: bool | None = None,
    dry_run: bool = False,
    verify: bool = False,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Write a checkpoint in another format; nothing in it is imported or run, and it is opened read-only.

    ``format`` is ``torch``, ``torch-legacy``, ``safetensors``, ``sharded`` or ``sharded-bin``; by default the name
    of ``output`` says it. ``sections`` are the parts to write, all by default. An existing file is replaced with
    ``force`` alone, or ``in_place``, which also keeps the old one as ``.bak`` unless ``backup`` says no. The output
    replaces nothing before what was computed has been read back; ``verify`` compares copied bytes too. ``strict``
    writes nothing where content would be left behind: exit code ``FINDINGS``.

    Raises ``UsageError``, ``Unreadable``, ``WriteFailed`` and, for a damaged checkpoint, ``CkpttoolError``. Costs a
    copy, and memory for the largest tensor that is not copied as it lies.
    """
    destination = destination_of("convert", path, output, in_place)
    most = size_of(max_shard_size) if isinstance(max_shard_size, str) else max_shard_size
    found = writable(path, limits)
    draft = sections_of(found, sections)
    wanted = format_for(destination, format)
    made = output_of(draft, wanted, destination, most)
    refused = strict and any(loss.kind == "content" for loss in made.losses)
    written = None
    if not (dry_run or refused):
        written = apply(
            draft,
            destination,
            format=wanted,
            overwrite=force or in_place,
            backup=backup,
            verify=verify,
            max_shard_size=most,
            progress=progress,
        )
    kept = fate(path, found.checkpoint, wanted == "folder", False) if not in_place else ()
    notes = (*found.notes, *kept)
    return _report(Result(found.checkpoint, made, written, notes, refused), os.fspath(destination))


# --- the report ----------------------------------------------------------------------------------------------


def _report(result: Result, destination: str) -> Report:
    return Report(
        "convert",
        Deferred(lambda: _data(result)),
        tuple(_blocks(result, destination)),
        ExitCode.FINDINGS if result.refused else ExitCode.OK,
    )


def _data(result: Result) -> dict[str, Json]:
    written = result.written
    return {
        "path": result.source.source,
        "source_format": result.source.format,
        "format": result.output.format,
        "written": None if written is None else written.path,
        "files": [] if written is None else list(written.files),
        "bytes": result.output.nbytes if written is None else written.nbytes,
        "copied": 0 if written is None else written.copied,
        "computed": 0 if written is None else written.computed,
        "compared": 0 if written is None else written.compared,
        "backup": None if written is None else written.backup,
        "not_carried": [
            {"key": loss.key, "what": loss.what, "why": loss.why, "kind": loss.kind} for loss in result.output.losses
        ],
        "notes": list(result.notes),
    }


def _blocks(result: Result, destination: str) -> Iterator[Block]:
    yield Text(f"{printable(result.source.source)} → {printable(destination)}", "title")
    yield _verdict(result)
    yield Facts(tuple(_facts(result)))
    yield from (Text(note, "warning") for note in result.notes)
    content = [loss for loss in result.output.losses if loss.kind == "content"]
    form = [loss for loss in result.output.losses if loss.kind == "form"]
    if content:
        yield _losses(content, f"not carried: {plural(len(content), 'item')}")
    if form:
        yield Details(f"kept in another form: {plural(len(form), 'item')}", (_losses(form, ""),))


def _verdict(result: Result) -> Text:
    lost = sum(loss.kind == "content" for loss in result.output.losses)
    if result.refused:
        return Text(f"nothing was written: {plural(lost, 'item')} would be left behind", "bad")
    said = "would be written" if result.written is None else "written"
    tail = f", without {plural(lost, 'item')} listed below" if lost else ""
    return Text(f"{said}{tail}", "warning" if lost else "good")


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    yield "format", f"{result.source.format} → {result.output.format}"
    written = result.written
    if written is None:
        yield "size", f"about {size(result.output.nbytes)} in {plural(len(result.output.files), 'file')}"
        return
    yield "size", f"{size(written.nbytes)} in {plural(len(written.files), 'file')}"
    compared = "compared with the source" if written.compared else "not compared; --verify does that"
    yield "copied", f"{size(written.copied)}, {compared}"
    yield "computed", f"{size(written.computed)}, read back and compared"
    if written.backup is not None:
        yield "old file", printable(written.backup)


def _losses(losses: Sequence[Loss], title: str) -> Table:
    folds = fold([(loss.key, (loss.what, loss.why)) for loss in losses])
    rows = [(printable(one.text) or "–", one.mark[0], one.mark[1]) for one in folds[:ROWS]]
    if len(folds) > ROWS:
        rows.append(("…", f"{len(folds) - ROWS} more lines", "--json has them all"))
    return Table(("key", "what", "why"), tuple(rows), "lll", title)
