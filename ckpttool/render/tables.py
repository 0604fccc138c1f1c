"""Tables in columns: side by side where they fit, else the first cell above the others. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from ckpttool.errors import printable
from ckpttool.render.columns import cells, pad, wrap
from ckpttool.report import Table

GAP = 2
PROSE = 28
FIRST = 24
"""The first column is wrapped down to this width; below it rows are stacked."""


def table_lines(table: Table, width: int) -> Iterator[tuple[str, bool]]:
    """The table's lines, each with whether it belongs to the head. No line is wider than ``width``."""
    rows = [tuple(printable(cell) for cell in row) for row in table.rows]
    align = table.align.ljust(len(table.columns), "l")
    widths = _natural(table.columns, rows)
    room = width - sum(widths[1:]) - GAP * (len(widths) - 1)
    if room < min(widths[0], FIRST) and align[len(widths) - 1] == "l":
        widths, room = _narrowed(widths, width)
    if room >= min(widths[0], FIRST):
        yield from _beside(table.columns, rows, align, [min(widths[0], room), *widths[1:]])
    elif sum(widths[1:]) + GAP * (len(widths) - 1) <= width:
        yield from _stacked(table.columns, rows, align, widths, width)
    else:
        yield from _listed(table.columns, rows, width)


def _narrowed(widths: list[int], width: int) -> tuple[list[int], int]:
    """The widths with a last column of prose made as narrow as it has to be, and the first column's room."""
    *others, last = widths
    room = width - sum(others[1:]) - GAP * len(others)
    narrow = room - min(widths[0], max(FIRST, room // 2))
    if PROSE <= narrow < last:
        return [*others, narrow], room - narrow
    return widths, room - last


def _natural(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cells, column)) for column in zip(columns, *rows, strict=True)]


def _beside(
    columns: Sequence[str], rows: Sequence[Sequence[str]], align: str, widths: Sequence[int]
) -> Iterator[tuple[str, bool]]:
    yield from ((line, True) for line in _row(columns, align, widths))
    yield (" " * GAP).join("─" * width for width in widths), True
    for row in rows:
        yield from ((line, False) for line in _row(row, align, widths))


def _row(row: Sequence[str], align: str, widths: Sequence[int]) -> Iterator[str]:
    """One row; a first or last cell that is too long goes on below."""
    firsts, lasts = wrap(row[0], widths[0]), wrap(row[-1], widths[-1]) if len(row) > 1 else []
    for place, (first, last) in enumerate(zip_longest(firsts, lasts, fillvalue="")):
        middle = row[1:-1] if place == 0 else [""] * (len(row) - 2)
        line = [first, *middle, last][: len(row)]
        yield (" " * GAP).join(map(pad, line, widths, align))


def _stacked(
    columns: Sequence[str], rows: Sequence[Sequence[str]], align: str, widths: Sequence[int], width: int
) -> Iterator[tuple[str, bool]]:
    yield columns[0], True
    yield "  " + (" " * GAP).join(map(pad, columns[1:], widths[1:], align[1:])), True
    yield "─" * width, True
    for row in rows:
        yield from ((line, False) for line in wrap(row[0], width))
        yield "  " + (" " * GAP).join(map(pad, row[1:], widths[1:], align[1:])), False


def _listed(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[tuple[str, bool]]:
    """Every cell with its column's name, for tables that fit no other way."""
    for row in rows:
        yield from ((line, False) for line in wrap(row[0], width))
        named = ", ".join(f"{name} {cell}" for name, cell in zip(columns[1:], row[1:], strict=True) if cell)
        yield from ((f"  {line}", False) for line in wrap(named, width - 2))
