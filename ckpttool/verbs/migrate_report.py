"""The report of ``migrate``: the plan step by step, what the rules did, and what was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckpttool.errors import ExitCode, printable
from ckpttool.folding import fold
from ckpttool.migration.chains import shown
from ckpttool.model import Checkpoint, Json
from ckpttool.plan import Plan, Step
from ckpttool.report import Block, Deferred, Details, Facts, Report, Table, Text
from ckpttool.units import count, plural, size
from ckpttool.verbs.chain_run import Run
from ckpttool.writing.apply import Written

ROWS = 40
"""Folded lines that people are shown; the data has all."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a migration came to; ``written`` is None where nothing was, ``destination`` empty where none is named.

    ``run`` is the way along a chain; None where rules alone were carried out. ``target`` is what the result has been
    held against, empty where nothing was.
    """

    source: Checkpoint
    plan: Plan
    written: Written | None = None
    destination: str = ""
    notes: tuple[str, ...] = ()
    run: Run | None = None
    target: str = ""

    @property
    def moves(self) -> bool:
        """Whether the output is to be another one than the source: a new version alone counts."""
        return bool(self.plan.steps) or (self.run is not None and bool(self.run.turns))


def report(result: Result) -> Report:
    """The result as a report."""
    return Report("migrate", Deferred(lambda: _data(result)), tuple(_blocks(result)), ExitCode.OK)


# --- data ------------------------------------------------------------------------------------------------------


def _data(result: Result) -> dict[str, Json]:
    plan, written = result.plan, result.written
    return {
        "path": result.source.source,
        "plan": [
            {"op": s.op, "from": [*s.old], "to": [*s.new], "reason": s.reason, "lossy": s.lossy or None}
            for s in plan.steps
        ],
        "rules": [{"rule": u.text, "where": u.where, "hits": u.hits} for u in plan.rules],
        "unmatched": [*plan.unmatched],
        "lossless": plan.lossless,
        "chain": None if result.run is None else _chain(result.run),
        "notes": [*result.notes, *plan.notes],
        "written": None if written is None else written.path,
        "files": [] if written is None else [*written.files],
        "backup": None if written is None else written.backup,
        "bytes": 0 if written is None else written.nbytes,
        "copied": 0 if written is None else written.copied,
        "computed": 0 if written is None else written.computed,
        "compared": 0 if written is None else written.compared,
        "not_carried": []
        if written is None
        else [{"key": loss.key, "what": loss.what, "why": loss.why, "kind": loss.kind} for loss in written.not_carried],
    }


def _chain(run: Run) -> dict[str, Json]:
    steps: list[Json] = []
    for turn in run.turns:
        old, new = turn.versions
        link = turn.link
        step: dict[str, Json] = {"step": link.name, "where": link.where, "from": old, "to": new}
        steps.append({**step, "back": turn.back, "digest": link.digest})
    return {"folder": run.chain.where, "from": run.from_, "to": run.to, "steps": steps}


# --- for people ------------------------------------------------------------------------------------------------


def _blocks(result: Result) -> Iterator[Block]:
    plan = result.plan
    towards = f" → {printable(result.destination)}" if result.destination else ""
    yield Text(f"{printable(result.source.source)}{towards}", "title")
    if result.run is not None and result.run.turns:
        yield from _way(result.run)
    yield _verdict(result)
    yield from (Text(note, "warning") for note in (*result.notes, *(printable(note) for note in plan.notes)))
    rows = list(step_rows(plan.steps))
    if rows:
        yield Table(("step", "from", "to", "keys"), tuple(rows[:ROWS]), "lllr", _title("plan", rows))
    lossy = list(lossy_rows(plan.steps))
    if lossy:
        yield Table(("what", "why", "keys"), tuple(lossy[:ROWS]), "llr", _title("cannot be had back", lossy))
    if plan.rules:
        uses = tuple((printable(u.text), printable(u.where), count(u.hits)) for u in plan.rules)
        yield Details(f"rules: {plural(len(uses), 'rule')}", (Table(("rule", "where", "keys"), uses, "llr"),))
    if plan.unmatched and plan.steps:
        yield _unmatched(plan.unmatched)
    yield from _written(result)


def _way(run: Run) -> Iterator[Block]:
    forth = "back" if run.turns[0].back else "forth"
    words = f"version {shown(run.from_)} → {shown(run.to)}: {plural(len(run.turns), 'step')} {forth}"
    yield Text(words, "heading")
    rows = [
        (*map(printable, turn.versions), printable(turn.link.where), printable(turn.link.about)) for turn in run.turns
    ]
    yield Table(("from", "to", "file", "about"), tuple(rows), "llll")


def _title(words: str, rows: Sequence[object]) -> str:
    return words if len(rows) <= ROWS else f"{words}, {ROWS} of {len(rows)} lines (--json has all)"


def _verdict(result: Result) -> Text:
    plan = result.plan
    if not result.moves:
        return Text(_idle(result), "good")
    done = "would be migrated" if result.written is None else "migrated"
    words = f"{done}: {plural(len(plan.steps), 'step')}, {plural(len(plan.changed), 'tensor')} computed"
    if plan.lossless:
        return Text(f"{words}, nothing lost", "good")
    lost = sum(bool(step.lossy) for step in plan.steps)
    return Text(f"{words}, {plural(lost, 'step')} cannot be taken back", "warning")


def _idle(result: Result) -> str:
    same = "nothing is to be done: already migrated, or the rules are for another checkpoint"
    if result.run is not None:
        same = f"already at version {shown(result.run.to)}: nothing is to be done"
    elif result.target:
        same = f"nothing is to be done: every key and shape is that of {result.target} already"
    if result.written is not None:
        return f"{same}; the copy is what the original is"
    return f"{same}; nothing was written"


def step_rows(steps: Iterable[Step]) -> Iterator[tuple[str, str, str, str]]:
    """Steps of one kind and one pattern of keys as one line each."""
    groups: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        kind = (step.op, *map(_pattern, step.old), "→", *map(_pattern, step.new))
        groups.setdefault(kind, []).append(step)
    for (op, *_), some in groups.items():
        old = _folded(key for step in some for key in step.old)
        new = _folded(key for step in some for key in step.new)
        yield (op, old, new if new != old else "(the same)", count(sum(max(len(s.old), len(s.new)) for s in some)))


def lossy_rows(steps: Iterable[Step]) -> Iterator[tuple[str, str, str]]:
    """What is lost and why, folded."""
    groups: dict[str, list[str]] = {}
    for step in steps:
        if step.lossy:
            groups.setdefault(step.lossy, []).extend(step.old or step.new)
    for why, keys in groups.items():
        yield _folded(keys), printable(why), count(len(keys))


def _pattern(key: str) -> str:
    return ".".join("#" if word.isdecimal() else word for word in key.split("."))


def _folded(keys: Iterable[str]) -> str:
    folds = fold((key, None) for key in keys)
    shown = printable(", ".join(one.text for one in folds[:3]))
    return shown if len(folds) <= 3 else f"{shown} and {count(sum(f.count for f in folds[3:]))} more"


def _unmatched(keys: Sequence[str]) -> Block:
    folds = fold((key, None) for key in keys)
    rows = tuple((printable(one.text), count(one.count)) for one in folds[:ROWS])
    words = f"no rule speaks of {plural(len(keys), 'key')}, which stay as they are"
    return Details(words, (Table(("keys", "keys"), rows, "lr"),))


def _written(result: Result) -> Iterator[Block]:
    written = result.written
    if written is None:
        return
    compared = f", {size(written.compared)} of them compared" if written.compared else ""
    rows = [
        ("format", written.format),
        ("size", size(written.nbytes)),
        ("copied", f"{size(written.copied)}{compared}"),
        ("computed", f"{size(written.computed)}, read back and compared"),
    ]
    if written.backup is not None:
        rows.append(("kept", printable(written.backup)))
    yield Facts(tuple(rows))
    content = [loss for loss in written.not_carried if loss.kind == "content"]
    if content:
        lines = tuple((printable(loss.key), loss.what, loss.why) for loss in content[:ROWS])
        yield Table(("key", "what", "why"), lines, "lll", f"not carried: {plural(len(content), 'item')}")
