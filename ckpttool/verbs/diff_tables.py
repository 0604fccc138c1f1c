"""The tables of ``diff``: tensors, those that changed most first, and values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpttool.changes import Change, Difference
from ckpttool.comparing.grouping import json_text
from ckpttool.model import Json
from ckpttool.report import Block, Table
from ckpttool.units import count, real, shape

TELLING_ULPS = 10_000
"""Units in the last place from which their number says less than the other numbers do."""


def tensor_table(changes: Sequence[Change], top: int | None) -> Iterator[Block]:
    """The tensors that changed with their numbers, at most ``top`` of them; nothing where there are none."""
    shown = changes if top is None else changes[:top]
    if not shown:
        return
    columns = ("tensor", "change", "changed", "relative", "max |Δ|", "cosine", "max ulp", "what")
    rows = tuple(_row(change) for change in shown)
    rest = len(changes) - len(shown)
    title = f"changed most, {count(len(shown))} of {count(len(changes))} (--all shows every one)" if rest else ""
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
        parts += [f"{count(number)} {name}" for name, number in (*counts, ("lost inf", found.lost_inf)) if number]
    if found is not None and found.cosine is None and found.numel:
        parts.append("no cosine: a side is all zero")
    return "; ".join([*parts, *([change.note] if change.note else [])])


def _cell(value: Json) -> str:
    if isinstance(value, list):
        return shape(tuple(n for n in value if isinstance(n, int)))
    return "–" if value is None else str(value)


def value_table(changes: Sequence[Change], top: int | None) -> Iterator[Block]:
    """The values that were edited, before and after, at most ``top`` of them."""
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
