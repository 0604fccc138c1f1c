"""Heat maps and histograms: a logarithmic scale of shades, and both drawn with block characters. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import zip_longest

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.render.columns import cells, pad, wrap
from ckpttool.report import Cell, HeatMap, Histogram
from ckpttool.units import count, real

BLOCKS = "·░▒▓█"
"""From nothing to the most, one character for each shade of text."""

SIZELESS = "≠"
"""A cell that changed in a way without a size."""

DECADES = 6
"""Powers of ten below the largest quantity that shades tell apart; what is smaller has the faintest."""

_NEAR = 1.5
"""Largest over smallest quantity up to which one shade serves for all."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Shades for positive quantities: ``edges`` is the least of each, ascending; empty where there is none."""

    edges: tuple[float, ...]
    steps: int

    def shade(self, quantity: float) -> int:
        """From 0, nothing, to ``steps``, the most."""
        if not quantity > 0:
            return 0
        reached = bisect_right(self.edges, quantity)
        return max(1, reached * self.steps // len(self.edges)) if self.edges else self.steps

    def legend(self) -> list[tuple[int, str]]:
        """Each shade in use with the least quantity that has it."""
        shown = [f"≥ {real(float(f'{edge:.2g}'))}" for edge in self.edges]
        return list(zip(map(self.shade, self.edges), shown, strict=True))


def scale_of(block: HeatMap, steps: int) -> Scale:
    """The scale that a heat map is drawn with, from its smallest to its largest quantity."""
    positive = [cell.quantity for cell in _all(block) if 0 < cell.quantity < math.inf]
    if not positive:
        return Scale((), steps)
    top = max(positive)
    low = max(min(positive), top / 10**DECADES)
    if top < low * _NEAR:
        return Scale((low,), steps)
    return Scale(tuple(low * (top / low) ** (step / steps) for step in range(steps)), steps)


def kinds(block: HeatMap) -> tuple[bool, bool]:
    """Whether cells of quantity 0 are there, and cells without a size."""
    found = list(_all(block))
    return any(cell.quantity == 0 for cell in found), any(math.isnan(cell.quantity) for cell in found)


def heat_lines(block: HeatMap, width: int) -> Iterator[str]:
    """The map in lines no wider than ``width``; columns that do not fit beside each other come below."""
    rows = [printable(name) for name in block.rows]
    label = min(max(map(cells, rows), default=0), max(8, width // 2))
    room = max(width - label - 2, 4)
    names = [printable(name) for name in block.columns]
    scale = scale_of(block, len(BLOCKS) - 1)
    first = 0
    while first < len(names):
        last, used = first + 1, _width(names[first])
        while last < len(names) and used + 1 + _width(names[last]) <= room:
            used += 1 + _width(names[last])
            last += 1
        yield from _panel(block, scale, rows, names, (first, last), (label, room))
        first = last
    yield from wrap(_legend(block, scale), width)


def _panel(
    block: HeatMap, scale: Scale, rows: list[str], names: list[str], part: tuple[int, int], room: tuple[int, int]
) -> Iterator[str]:
    chosen = slice(*part)
    widths = [min(_width(name), room[1]) for name in names[chosen]]
    heads = [wrap(name, size) for name, size in zip(names[chosen], widths, strict=True)]
    for head in zip_longest(*heads, fillvalue=""):
        yield " " * (room[0] + 2) + " ".join(map(pad, head, widths))
    for name, line in zip(rows, block.cells, strict=True):
        drawn = " ".join(pad(_mark(cell, scale) * 2, size) for cell, size in zip(line[chosen], widths, strict=True))
        for at, piece in enumerate(wrap(name, room[0])):
            yield f"{pad(piece, room[0])}  {'' if at else drawn}"


def _mark(cell: Cell | None, scale: Scale) -> str:
    if cell is None:
        return " "
    return SIZELESS if math.isnan(cell.quantity) else BLOCKS[scale.shade(cell.quantity)]


def _legend(block: HeatMap, scale: Scale) -> str:
    zero, sizeless = kinds(block)
    words = [f"{printable(block.quantity)}:"] if block.quantity and scale.edges else []
    words += [f"{BLOCKS[shade]} {text}" for shade, text in scale.legend()]
    words += [f"{BLOCKS[0]} {printable(block.zero)}"] if zero else []
    words += [f"{SIZELESS} {printable(block.sizeless)}"] if sizeless else []
    return "  ".join(words)


def histogram_rows(block: Histogram) -> tuple[tuple[str, float, str], ...]:
    """The histogram as rows of a bar chart."""
    return tuple((label, float(number), count(number)) for label, number, _ in block.bins)


def _width(name: str) -> int:
    return max(2, cells(name))


def _all(block: HeatMap) -> Iterable[Cell]:
    return (cell for line in block.cells for cell in line if cell is not None)
