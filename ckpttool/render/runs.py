"""Timelines and curves over steps, drawn with characters. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckpttool.errors import printable
from ckpttool.render.columns import cells, pad, wrap
from ckpttool.report import Curves, Lane, Timeline
from ckpttool.units import count, real

SIGNS = {"save": "s", "kill": "×", "resume": "r", "depart": "!"}
WORDS = {
    "save": "saved after it",
    "kill": "killed after it",
    "resume": "first step after a resume",
    "depart": "first that differs",
}
WIDEST = 4
"""Columns of one step at most."""

HEIGHT = 10
"""Lines of a drawing of curves."""

DOTS = "·×+o"
"""One character for each curve; curves of the same value in one place show the first of them."""


def timeline_lines(block: Timeline, width: int) -> Iterator[str]:
    """The timeline in lines no wider than ``width``; many steps share a column where they have to."""
    names = [printable(lane.name) for lane in block.lanes]
    label = min(max(map(cells, names), default=0), max(8, width // 3))
    room = max(width - label - 2, 4)
    scale = min(WIDEST, room // max(block.last, 1)) or room / block.last
    yield f"{'':{label}}  {_ticks(block.last, scale, room)}".rstrip()
    for lane, name in zip(block.lanes, names, strict=True):
        drawn = _lane(lane, scale, room)
        for place, piece in enumerate(wrap(name, label)):
            yield f"{pad(piece, label)}  {'' if place else drawn}".rstrip()
    kinds = [kind for kind in SIGNS if any(kind == mark for lane in block.lanes for _, mark in lane.marks)]
    yield from _keys(["─ a step", *(f"{SIGNS[kind]} {WORDS[kind]}" for kind in kinds)], width)


def _keys(keys: Sequence[str], width: int) -> Iterator[str]:
    """A legend; a line is broken between two keys where that is possible."""
    line = ""
    for key in keys:
        if line and cells(line) + 2 + cells(key) > width:
            yield from wrap(line, width)
            line = ""
        line = f"{line}  {key}" if line else key
    yield from wrap(line, width)


def _at(step: int, scale: float) -> int:
    """The first column of a step."""
    return int((step - 1) * scale)


def _ticks(last: int, scale: float, room: int) -> str:
    """Numbers of steps above the columns where they stand, far enough apart."""
    line, shown = "", 0
    apart = next(n * 10**e for e in range(18) for n in (1, 2, 5) if n * 10**e * scale >= len(str(last)) + 3)
    for step in (1, *range(apart, last + 1, apart), last):
        place = _at(step, scale)
        far = step == last or 2 * (step - shown) > apart
        if (not line or (far and place >= len(line) + 2)) and place + len(str(step)) <= room:
            line, shown = line.ljust(place) + str(step), step
    return line


def _lane(lane: Lane, scale: float, room: int) -> str:
    """Marks of a step stand first (resume, departure) and last (save, kill) in its columns."""
    line = [" "] * room
    if lane.last >= lane.first:
        for column in range(_at(lane.first, scale), max(_at(lane.last + 1, scale), _at(lane.first, scale) + 1)):
            if column < room:
                line[column] = "─"
    for kind in ("save", "resume", "depart", "kill"):
        for step, mark in lane.marks:
            if mark == kind:
                last = max(_at(step + 1, scale) - 1, _at(step, scale))
                before = last - 1 if kind == "save" and scale >= 2 and (step, "kill") in lane.marks else last
                beside = kind == "depart" and scale >= 2 and (step, "resume") in lane.marks
                place = _at(step, scale) + beside if kind in ("resume", "depart") else before
                line[min(max(place, 0), room - 1)] = SIGNS[kind]
    return "".join(line).rstrip()


# --- curves ----------------------------------------------------------------------------------------------


def curve_lines(block: Curves, width: int) -> Iterator[str]:
    """The curves in ``HEIGHT`` lines and a legend; quantities that are no numbers are left out."""
    points = [[(x, y) for x, y in curve if math.isfinite(y)] for _, curve in block.curves]
    flat = [point for curve in points for point in curve]
    if not flat:
        yield "no finite value"
        return
    low, high = min(y for _, y in flat), max(y for _, y in flat)
    first, last = min(x for x, _ in flat), max(x for x, _ in flat)
    label = max(cells(real(low)), cells(real(high)))
    room = max(min(width - label - 3, WIDEST * (last - first + 1)), 4)
    grid = [[" "] * room for _ in range(HEIGHT)]
    for number in reversed(range(len(points))):
        for x, y in points[number]:
            column = round((x - first) / max(last - first, 1) * (room - 1))
            row = round(below(y, low, high) * (HEIGHT - 1))
            grid[row][column] = DOTS[number % len(DOTS)]
    for place, line in enumerate(grid):
        name = real(high) if place == 0 else real(low) if place == HEIGHT - 1 and high > low else ""
        yield f"{pad(name, label, 'r')} │ {''.join(line)}".rstrip()
    yield f"{'':{label}} └{'─' * (room + 1)}"
    ends = f"{block.axis} {count(first)}"
    yield f"{'':{label}}   {ends}{pad(count(last), max(room - cells(ends), 1 + len(count(last))), 'r')}"[:width]
    names = [printable(name) for name, _ in block.curves]
    yield from _keys([f"{DOTS[number % len(DOTS)]} {name}" for number, name in enumerate(names)], width)


def below(value: float, low: float, high: float) -> float:
    """How far below the highest value one lies, from 0 to 1; in the middle where there is only one."""
    span = high - low
    if math.isinf(span):
        return (high / 2 - value / 2) / (high / 2 - low / 2)
    return (high - value) / span if span else 0.5
