"""Traces from their files: whole lines alone, of a version that is known. What is no trace says so."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from ckpttool.determinism.trace import SCHEMA, Between, Process, Save, Step
from ckpttool.determinism.traits import read_traits


class TraceError(ValueError):
    """A folder or a line that is no trace; the text says which and why."""


def read_trace(folder: Path) -> tuple[Process, ...]:
    """The processes of a trace in the order in which they started. A last line that was cut off is left out.

    Raises ``TraceError`` for a folder without traces, and for a version that is not known.
    """
    files = set(folder.glob("r*-*.jsonl"))
    if not files:
        raise TraceError(f"{folder} – no trace here: no optimizer step was seen")
    return read_files(files)


def read_files(files: Collection[Path]) -> tuple[Process, ...]:
    """The same of chosen files. One without a byte is of a process that died as it began, and is left out."""
    found = [_process(path, lines) for path in sorted(files, key=_order) if (lines := _lines(path))]
    if not found:
        raise TraceError(f"{min(files)} – an empty file: the process died before it wrote a line")
    return tuple(found)


def _order(path: Path) -> tuple[int, int]:
    rank, _, number = path.stem[1:].partition("-")
    return (int(number), int(rank)) if rank.isdecimal() and number.isdecimal() else (0, 0)


Line: TypeAlias = Mapping[str, object]


def _process(path: Path, lines: list[Line]) -> Process:
    try:
        return _parsed(lines)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise TraceError(f"{path} – a line is none of a trace: {error}") from error


def _parsed(lines: list[Line]) -> Process:
    kinds: dict[str, list[Line]] = {}
    for line in lines:
        kinds.setdefault(str(line.get("kind")), []).append(line)
    head = lines[0]
    bases = [int(str(line["base"])) for line in lines if isinstance(line.get("base"), int)]
    state = kinds.get("state", [{}])[-1]
    generators = [(line.get("how"), str(line.get("digest"))) for line in kinds.get("generator", [])]
    signalled = kinds.get("signalled", [{}])[0].get("step")
    return Process(
        int(str(head.get("rank", 0))),
        bases[-1] if bases else None,
        _texts(head.get("environment")) | _texts(state.get("environment")),
        _step(state) if state else None,
        tuple(_step(line) for line in kinds.get("step", [])),
        _saves(kinds),
        tuple(_save(line) for line in kinds.get("load", [])),
        str(kinds["end"][-1].get("why", "")) if "end" in kinds else "",
        _texts(state.get("modules")),
        tuple(digest for how, digest in generators if how == "seeded"),
        tuple(digest for how, digest in generators if how == "restored"),
        tuple(_between(line) for line in kinds.get("between", [])),
        int(str(signalled)) if signalled is not None else None,
        len(kinds.get("signalled", [])),
        str(kinds.get("batches", [{}])[-1].get("why", "")),
        _events(kinds.get("disk", [{}])[-1].get("events")),
    )


def _lines(path: Path) -> list[Line]:
    """The lines up to the first that was cut off; none of an empty file."""
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise TraceError(f"{path} – {(error.strerror or str(error)).lower()}") from error
    lines: list[Line] = []
    for place, text in enumerate(texts):
        try:
            lines.append(json.loads(text))
        except (ValueError, RecursionError):
            if place + 1 < len(texts):
                raise TraceError(f"{path} – line {place + 1} is not JSON: not a trace, or a damaged one") from None
    if not texts:
        return []
    _check_version(path, lines[0] if lines else None)
    if odd := next((place for place, line in enumerate(lines, 1) if not isinstance(line, dict)), 0):
        raise TraceError(f"{path} – line {odd} is no object: a damaged trace")
    return lines


def _check_version(path: Path, head: object) -> None:
    schema = head.get("schema") if isinstance(head, dict) else None
    if schema == SCHEMA:
        return
    family, _, version = SCHEMA.partition("/")
    if isinstance(schema, str) and schema.startswith(f"{family}/"):
        theirs = schema.partition("/")[2]
        text = f"a trace of version {theirs}, and this ckpttool reads version {version}"
        newer = theirs.isdecimal() and int(theirs[:9]) > int(version)
        raise TraceError(f"{path} – {text}" + (": it was recorded by a newer one; upgrade this one" if newer else ""))
    raise TraceError(f"{path} – not a trace: its first line does not say {SCHEMA}")


def _texts(found: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _number(found: object) -> int | None:
    return int(found) if isinstance(found, (int, float)) else None


def _step(line: Line) -> Step:
    loss = line.get("loss")
    return Step(
        int(str(line.get("step", 0))),
        _texts(line.get("fields")),
        float(loss) if isinstance(loss, (int, float)) else None,
        _texts(line.get("tensors")),
        str(line.get("rows", "")),
        _number(line.get("graded")),
        _number(line.get("micro")),
        str(line.get("contents", "")),
        read_traits(line.get("traits")),
        _texts(line.get("values")),
    )


def _events(found: object) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(str, event)) for event in found) if isinstance(found, list) else ()


def _between(line: Line) -> Between:
    saves, evaluations = (_number(line.get(key)) or 0 for key in ("saves", "evaluations"))
    return Between(int(str(line["step"])), saves, evaluations, _names(line.get("moved")))


def _names(found: object) -> tuple[str, ...]:
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _save(line: Line) -> Save:
    return Save(
        int(str(line.get("step", 0))),
        str(line.get("path", "")),
        str(line.get("digest", "")),
        _texts(line.get("parts")),
        _number(line.get("save")) or 0,
        _texts(line.get("leaves")),
        _texts(line.get("live")),
        traits=read_traits(line.get("traits")),
        values=_texts(line.get("values")),
        unread=_names(line.get("unread")),
    )


def _saves(kinds: Mapping[str, list[Line]]) -> tuple[Save, ...]:
    done = {_number(line.get("save")): line for line in kinds.get("saved", [])}
    files = {_number(line.get("save")): line.get("events") for line in kinds.get("files", [])}
    found = []
    for save in map(_save, kinds.get("save", [])):
        # Traces that were recorded before saves were counted say nothing of their end.
        complete = save.ordinal in done or not save.ordinal
        size = _number(done[save.ordinal].get("size")) if save.ordinal in done else None
        told = files.get(save.ordinal)
        events = tuple((str(e[0]), str(e[1])) for e in told) if isinstance(told, list) else ()
        found.append(replace(save, complete=complete, size=size, events=events))
    return tuple(found)
