"""The report of ``diff``: sentences, tables and pictures for people, data for scripts, one exit code. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ckpttool.comparing.grouping import ROT, by_amount, sentences
from ckpttool.comparing.picture import pictures
from ckpttool.errors import printable
from ckpttool.model import Finding
from ckpttool.report import Block, Report, Subject, Text
from ckpttool.units import plural, real
from ckpttool.verbs.diff_data import diff_data
from ckpttool.verbs.diff_result import Result
from ckpttool.verbs.diff_sides import Target
from ckpttool.verbs.diff_tables import tensor_table, value_table

MOST_UNREAD = 5
"""Reasons why something was not compared that people are shown."""


def report(result: Result, *, top: int = 20, everything: bool = False) -> Report:
    """The report on a comparison; ``top`` rows of tensors for people unless they want ``everything``."""
    told = sentences(result.changes, _keys(result))
    blocks = tuple(_blocks(result, told, None if everything else top))
    return Report("diff", diff_data(result), blocks, result.exit_code, (_subject(result, told),))


def _blocks(result: Result, told: Sequence[str], top: int | None) -> Iterator[Block]:
    yield Text(f"{result.a.name} → {result.b.name}", "title")
    yield _verdict(result)
    for side in (result.a, result.b):
        yield from _damage(side)
    if result.pairing is None:
        return
    yield from (Text(printable(one)) for one in told)
    yield from (Text(one, "warning") for one in _warnings(result))
    yield from tensor_table(by_amount(result.changes), top)
    yield from value_table([change for change in result.changes if change.kind == "edited"], top)
    yield from pictures(result.changes, [(i.key, i.section, i.numel) for i in result.b.items], deltas=result.deltas)
    for key, why in result.coverage.unread[:MOST_UNREAD]:
        yield Text(f"not compared: {printable(key)} – {why}", "warning")
    yield Text(f"coverage: {result.coverage.text}", "dim")


def _keys(result: Result) -> dict[str, list[str]]:
    """Keys of b's tensors, and of those that only a has, by section."""
    found: dict[str, list[str]] = {}
    for item in result.b.items:
        found.setdefault(item.section, []).append(item.key)
    for side in result.pairing.only_a if result.pairing else ():
        found.setdefault(side.section, []).append(side.key)
    return found


def _verdict(result: Result) -> Text:
    if result.pairing is None:
        return Text("not comparable", "bad")
    if not result.sound:
        told = "what can still be read is different" if result.changes else "what can still be read is equal"
        return Text(f"not comparable: a side is damaged; {told}", "bad")
    if result.changes:
        return Text("different", "bad")
    if not result.complete:
        return Text("not settled: not everything could be compared; the rest is equal", "bad")
    words = " as saved" if result.coverage.as_saved else ""
    if result.coverage.close:
        number = result.coverage.close
        verb = "differs" if number == 1 else "differ"
        most = f"{plural(number, 'tensor')} {verb} by at most {real(result.coverage.largest)}"
        return Text(f"equal within the tolerance: {most}", "good")
    if not (result.coverage.pairs or result.coverage.values):
        return Text("identical: both are empty", "good")
    return Text(f"identical{words}", "good")


def _damage(side: Target) -> Iterator[Block]:
    for one in side.errors[:MOST_UNREAD]:
        where = f" – {printable(one.where)}" if one.where and one.where != side.name else ""
        yield Text(f"{side.name}{where} – {one.rule}: {printable(one.message)}", "bad")
        if one.hint and side.checkpoint.kind:
            yield Text(f"→ {printable(one.hint)}", "dim")
    if side.errors and not side.checkpoint.kind:
        yield Text(f"→ ckpttool verify {shlex.quote(side.name)}", "dim")


def _warnings(result: Result) -> Iterator[str]:
    """What deserves a look before all numbers: NaN that came, bit rot, a change that nothing recorded explains."""
    new = [c for c in result.changes if c.difference and (c.difference.new_nan or c.difference.new_inf)]
    if new:
        yield f"new NaN or infinity in {plural(len(new), 'tensor')}, such as {printable(new[0].key)}"
    rot = [c for c in result.changes if ROT in c.note]
    if rot:
        yield (
            f"{ROT}: the content of {plural(len(rot), 'tensor')} differs although both files record the same "
            f"checksum for it, such as {printable(rot[0].key)}; run ckpttool verify on both"
        )
    elif _unexplained(result):
        yield "weights differ although counters, optimizer and everything else agree: an edit or damage, not training"


def _unexplained(result: Result) -> bool:
    """Whether only contents of weights differ, between files that count steps and keep optimizer state."""
    both = all(side.layout.optimizers and _counts(side) for side in (result.a, result.b))
    only = all(c.kinds == ("rewritten",) and c.section == "weights" for c in result.changes)
    return bool(result.changes) and both and only and result.coverage.whole


def _counts(side: Target) -> bool:
    return any(section.name == "counters" for section in side.layout.sections)


def _subject(result: Result, told: Sequence[str]) -> Subject:
    """For annotations on a pull request: one for each sentence."""
    if result.pairing is None or not result.sound:
        errors = "; ".join(one.message for side in (result.a, result.b) for one in side.errors)
        return Subject(result.b.name, "not comparable", (), True, errors or "there is no tree to compare")
    findings = tuple(Finding("diff", "changed", "warning", "", one) for one in told)
    return Subject(result.b.name, "different" if result.changes else "equal", findings, bool(result.changes))
