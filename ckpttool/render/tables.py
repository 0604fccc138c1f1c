"""Tables in columns: side by side where they fit, else the first cell above the others. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpttool.errors import printable
from ckpttool.render.columns import cells, pad, wrap
from ckpttool.report import Table

GAP = 2
FIRST = 24
"""The first column is wrapped down to this width; below it rows are stacked."""


def table_lines(table: Table, width: int) -> Iterator[tuple[str, bool]]:
    """The table's lines, each with whether it belongs to the head. No line is wider than ``width``."""
    rows = [tuple(printable(cell) for cell in row) for row in table.rows]
    align = table.align.ljust(len(table.columns), "l")
    widths = _natural(table.columns, rows)
    room = width - sum(widths[1:]) - GAP * (len(widths) - 1)
    if room >= min(widths[0], FIRST):
        yield from _beside(table.columns, rows, align, [min(widths[0], room), *widths[1:]])
    elif sum(widths[1:]) + GAP * (len(widths) - 1) <= width:
        yield from _stacked(table.columns, rows, align, widths, width)
    else:
        yield from _listed(table.columns, rows, width)


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
    """One row; a first cell that is too long goes on below."""
    first, *more = wrap(row[0], widths[0]) if cells(row[0]) > widths[0] else [row[0]]
    yield (" " * GAP).join(map(pad, [first, *row[1:]], widths, align))
    yield from (pad(line, widths[0], align[0]) for line in more)


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
