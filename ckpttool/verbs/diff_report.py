"""The report of ``diff``: JSON for scripts, sentences, a table and pictures for people, one exit code. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckpttool.changes import KINDS, Change, Difference, Pairing, Tolerance
from ckpttool.comparing.grouping import ROT, by_amount, json_text, sentences
from ckpttool.comparing.picture import pictures
from ckpttool.errors import ExitCode, printable
from ckpttool.model import Finding, Json
from ckpttool.report import Block, Report, Subject, Table, Text
from ckpttool.units import count, plural, real, shape
from ckpttool.verbs.diff_sides import Target

TELLING_ULPS = 10_000
"""Units in the last place from which their number says less than the other numbers do."""

MOST_UNREAD = 5
"""Reasons why something was not compared that people are shown."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was compared and what was not. ``pairs`` of tensors, of which ``compared``; ``values`` are no tensors.

    ``beyond_format`` says what one side's format cannot hold; ``largest`` is the greatest absolute difference
    within the tolerance.
    """

    tensors_a: int = 0
    tensors_b: int = 0
    pairs: int = 0
    compared: int = 0
    equal: int = 0
    close: int = 0
    unread: tuple[tuple[str, str], ...] = ()
    values: int = 0
    as_saved: bool = False
    whole: bool = True
    beyond_format: tuple[str, ...] = ()
    largest: float = 0.0

    @property
    def json(self) -> Json:
        return {
            "tensors_a": self.tensors_a,
            "tensors_b": self.tensors_b,
            "pairs": self.pairs,
            "compared": self.compared,
            "equal": self.equal,
            "close": self.close,
            "not_compared": [{"key": key, "why": why} for key, why in self.unread],
            "values": self.values,
            "how": "as saved" if self.as_saved else "content",
            "selected": not self.whole,
            "beyond_format": [*self.beyond_format],
        }

    @property
    def text(self) -> str:
        """One sentence: what the answer rests on."""
        how = (
            "by recorded checksums (as saved; damage after saving is for verify)"
            if self.as_saved
            else "by content"
        )
        words = [f"{count(self.compared)} of {plural(self.pairs, 'pair')} of tensors compared {how}"]
        words += [f"{plural(self.values, 'value')}"] if self.values else []
        words += [] if self.whole else ["a selection only"]
        words += [f"{count(len(self.unread))} not compared"] if self.unread else []
        words += [f"not compared: {one}" for one in self.beyond_format]
        return "; ".join(words)


@dataclass(frozen=True, slots=True)
class Result:
    """All that a comparison came to; without a pairing the two could not be compared at all."""

    a: Target
    b: Target
    changes: tuple[Change, ...] = ()
    pairing: Pairing | None = None
    coverage: Coverage = field(default_factory=Coverage)
    tolerance: Tolerance = field(default_factory=Tolerance)
    deltas: Mapping[int, int] = field(default_factory=dict, hash=False)

    @property
    def sound(self) -> bool:
        """Whether both sides are whole, so that the answer is one."""
        return self.pairing is not None and not self.a.errors and not self.b.errors

    @property
    def complete(self) -> bool:
        return self.sound and not self.coverage.unread

    @property
    def identical(self) -> bool:
        return self.complete and not self.changes and not self.coverage.close

    @property
    def close(self) -> bool:
        return self.complete and not self.changes

    @property
    def exit_code(self) -> ExitCode:
        """Different counts even where not all was compared; equal only where everything was."""
        if not self.sound:
            return ExitCode.IMPOSSIBLE
        if self.changes:
            return ExitCode.FINDINGS
        return ExitCode.OK if self.complete else ExitCode.IMPOSSIBLE


def report(result: Result, *, top: int = 20, everything: bool = False) -> Report:
    """The report on a comparison; ``top`` rows of tensors for people unless they want ``everything``."""
    return Report(
        "diff",
        _data(result),
        tuple(_blocks(result, None if everything else top)),
        result.exit_code,
        (_subject(result),),
    )


# --- for scripts ---------------------------------------------------------------------------------------


def _data(result: Result) -> dict[str, Json]:
    counted = Counter(change.kind for change in result.changes)
    return {
        "a": _side(result.a),
        "b": _side(result.b),
        "identical": result.identical,
        "close": result.close,
        "coverage": result.coverage.json,
        "summary": {kind: counted[kind] for kind in KINDS if counted[kind]},
        "tolerance": {
            "atol": result.tolerance.atol,
            "rtol": result.tolerance.rtol,
            "ulp": result.tolerance.ulp,
        },
        "changes": [_change(change) for change in result.changes],
        "metadata": [*_metadata(result)],
    }


def _side(side: Target) -> Json:
    return {
        "path": side.name,
        "format": side.checkpoint.format,
        "kind": side.checkpoint.kind or None,
        "bytes": side.checkpoint.nbytes,
        "tensors": len(side.items),
        "damage": [{"rule": one.rule, "where": one.where, "message": one.message} for one in side.errors],
    }


def _change(change: Change) -> Json:
    found = change.difference
    return {
        "kind": change.kind,
        "kinds": [*change.kinds],
        "key": change.key,
        "old_key": change.old_key,
        "section": change.section,
        "before": change.before,
        "after": change.after,
        "stats": None if found is None else _stats(found),
        "score": change.score,
        "note": change.note or None,
        "facts": dict(change.facts),
    }


def _stats(found: Difference) -> Json:
    return {
        "max_abs": found.max_abs,
        "mean_abs": found.mean_abs,
        "max_rel": found.max_rel,
        "rms": found.rms,
        "cosine": found.cosine,
        "changed": found.changed,
        "numel": found.numel,
        "max_ulp": found.max_ulp,
        "beyond": found.beyond,
        "compared": found.compared,
        "relative": found.relative,
        "first": found.first,
        "new_nan": found.new_nan,
        "lost_nan": found.lost_nan,
        "new_inf": found.new_inf,
        "lost_inf": found.lost_inf,
    }


def _metadata(result: Result) -> Iterator[Json]:
    """What the containers record of themselves, where it differs: no difference of what they hold."""
    a, b = result.a.checkpoint, result.b.checkpoint
    if a.format != b.format:
        yield {"name": "format", "before": a.format, "after": b.format}
    for name in dict.fromkeys([*a.metadata, *b.metadata]):
        if a.metadata.get(name) != b.metadata.get(name):
            yield {"name": name, "before": a.metadata.get(name), "after": b.metadata.get(name)}
    writers = [
        None if side.layout.writer is None else side.layout.writer.framework for side in (result.a, result.b)
    ]
    if writers[0] != writers[1]:
        yield {"name": "writer", "before": writers[0], "after": writers[1]}


# --- for people ----------------------------------------------------------------------------------------


def _blocks(result: Result, top: int | None) -> Iterator[Block]:
    yield Text(f"{result.a.name} → {result.b.name}", "title")
    yield _verdict(result)
    for side in (result.a, result.b):
        yield from _damage(side)
    if result.pairing is None:
        return
    yield from (Text(printable(one)) for one in sentences(result.changes, _keys(result)))
    yield from (Text(one, "warning") for one in _warnings(result))
    yield from _tensors(by_amount(result.changes), top)
    yield from _values([change for change in result.changes if change.kind == "edited"], top)
    yield from pictures(
        result.changes, [(i.key, i.section, i.numel) for i in result.b.items], deltas=result.deltas
    )
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
    if side.errors and not side.checkpoint.kind:
        yield Text(f"→ ckpttool verify {side.name}", "dim")


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
    return bool(result.changes) and both and only


def _counts(side: Target) -> bool:
    return any(section.name == "counters" for section in side.layout.sections)


def _tensors(changes: Sequence[Change], top: int | None) -> Iterator[Block]:
    shown = changes if top is None else changes[:top]
    if not shown:
        return
    columns = ("tensor", "change", "changed", "relative", "max |Δ|", "cosine", "max ulp", "what")
    rows = tuple(_row(change) for change in shown)
    rest = len(changes) - len(shown)
    title = (
        f"changed most, {count(len(shown))} of {count(len(changes))} (--all shows every one)" if rest else ""
    )
    yield _narrow(columns, rows, "llrrrrrl", title)


def _row(change: Change) -> tuple[str, ...]:
    kinds = " + ".join(change.kinds)
    found = change.difference
    what = _what(change)
    if found is None:
        return (change.key, kinds, "", "", "", "", "", what)
    return (
        change.key,
        kinds,
        _share(found),
        f"{100 * found.relative:.3g} %",
        real(found.max_abs),
        "–" if found.cosine is None else f"{found.cosine:.6g}",
        count(found.max_ulp) if found.max_ulp and found.max_ulp < TELLING_ULPS else "",
        what,
    )


def _share(found: Difference) -> str:
    if found.changed == found.numel:
        return "all" if found.numel > 1 else "1 of 1"
    return f"{count(found.changed)} of {count(found.numel)}"


def _what(change: Change) -> str:
    parts = []
    before, after = change.before, change.after
    if change.old_key is not None and change.kind in ("renamed", "moved"):
        parts.append(f"was {change.old_key}")
    if isinstance(before, dict) and isinstance(after, dict):
        turned = [name for name in ("dtype", "shape", "layout") if before.get(name) != after.get(name)]
        parts += [f"{_cell(before.get(name))} → {_cell(after.get(name))}" for name in turned]
    elif isinstance(after, dict) or isinstance(before, dict):
        side = after if isinstance(after, dict) else before
        assert isinstance(side, dict)
        parts.append(f"{side.get('dtype', '')} {_cell(side.get('shape'))}".strip())
    found = change.difference
    if found is not None:
        counts = (("new NaN", found.new_nan), ("lost NaN", found.lost_nan), ("new inf", found.new_inf))
        parts += [
            f"{count(number)} {name}" for name, number in (*counts, ("lost inf", found.lost_inf)) if number
        ]
    if found is not None and found.cosine is None and found.numel:
        parts.append("no cosine: a side is all zero")
    return "; ".join([*parts, *([change.note] if change.note else [])])


def _cell(value: Json) -> str:
    if isinstance(value, list):
        return shape(tuple(n for n in value if isinstance(n, int)))
    return "–" if value is None else str(value)


def _values(changes: Sequence[Change], top: int | None) -> Iterator[Block]:
    shown = changes if top is None else changes[:top]
    if not shown:
        return
    rest = len(changes) - len(shown)
    title = f"values, {count(len(shown))} of {count(len(changes))}" if rest else ""
    rows = tuple((c.key, _value(c, "before"), _value(c, "after"), c.note) for c in shown)
    yield _narrow(("value", "before", "after", "note"), rows, "llll", title)


def _narrow(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], align: str, title: str) -> Table:
    """A table without the columns that are empty."""
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in rows)]
    told = tuple(tuple(row[i] for i in kept) for row in rows)
    return Table(tuple(columns[i] for i in kept), told, "".join(align[i] for i in kept), title)


def _value(change: Change, side: str) -> str:
    missing = {"before": "added", "after": "removed"}[side]
    if change.facts.get("op") == missing:
        return "–"
    value = change.before if side == "before" else change.after
    return "…" if value is None and change.note else json_text(value)


def _subject(result: Result) -> Subject:
    """For annotations on a pull request: one for each sentence."""
    if result.pairing is None or not result.sound:
        errors = "; ".join(one.message for side in (result.a, result.b) for one in side.errors)
        return Subject(result.b.name, "not comparable", (), True, errors or "there is no tree to compare")
    told = sentences(result.changes, _keys(result))
    findings = tuple(Finding("diff", "changed", "warning", "", one) for one in told)
    return Subject(result.b.name, "different" if result.changes else "equal", findings, bool(result.changes))
