"""Timelines and curves over steps as HTML: shapes in the page itself, words beside them. No script, no request."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckpttool.render.pictures import escape
from ckpttool.render.runs import SIGNS, WORDS, below
from ckpttool.report import Curves, Lane, Timeline
from ckpttool.units import count, real

COLOURS = 4
"""Curves that the style sheet tells apart."""


def drawing(block: Timeline | Curves) -> Iterator[str]:
    """The block's HTML. What shapes say stands there as text too."""
    if block.title:
        yield f"<h2>{escape(block.title)}</h2>"
    yield from _timeline(block) if isinstance(block, Timeline) else _curves(block)


def _timeline(block: Timeline) -> Iterator[str]:
    yield f'<div class="lane"><span></span><span class="ticks"><i>step 1</i><i>{count(block.last)}</i></span></div>'
    for lane in block.lanes:
        words = _said(lane)
        shapes = "".join(_shapes(lane, max(0.2, block.last / 200)))
        view = f'viewBox="0 0 {block.last} 10" preserveAspectRatio="none"'
        drawn = f'<svg {view} role="img" aria-label="{escape(words)}">{shapes}</svg>' if lane.last else ""
        yield f'<div class="lane"><span>{escape(lane.name)}</span><div>{drawn}</div></div>'
    kinds = [kind for kind in SIGNS if any(kind == mark for lane in block.lanes for _, mark in lane.marks)]
    shown = "".join(f'<span><i class="{kind}"></i>{escape(WORDS[kind])}</span>' for kind in kinds)
    yield f'<p class="legend">{shown}</p>'


def _said(lane: Lane) -> str:
    """The lane in words."""
    steps = f"steps {lane.first} to {lane.last}" if lane.last >= lane.first else "no step"
    told = [f"{WORDS[kind]}: {', '.join(str(n) for n, mark in lane.marks if mark == kind)}" for kind in SIGNS]
    return "; ".join([f"{lane.name}: {steps}", *(text for text in told if not text.endswith(": "))])


def _shapes(lane: Lane, wide: float) -> Iterator[str]:
    if lane.last >= lane.first:
        yield f'<line x1="{lane.first - 1}" y1="5" x2="{lane.last}" y2="5"/>'
    for step, kind in lane.marks:
        # What comes after a step stands at its end, what comes with it at its beginning.
        x = step - 1 + (wide * 1.2 if kind == "depart" and (step, "resume") in lane.marks else 0)
        if kind in ("save", "kill"):
            x = step - wide * (1 if kind == "kill" else 2.2)
        title = f"<title>step {step}: {WORDS[kind]}</title>"
        yield f'<rect class="{kind}" x="{x:g}" y="1" width="{wide:g}" height="8">{title}</rect>'


def _curves(block: Curves) -> Iterator[str]:
    points = [(name, [(x, y) for x, y in curve if math.isfinite(y)]) for name, curve in block.curves]
    flat = [point for _, curve in points for point in curve]
    if not flat:
        yield '<p class="dim">no finite value</p>'
        return
    low, high = min(y for _, y in flat), max(y for _, y in flat)
    first, last = min(x for x, _ in flat), max(x for x, _ in flat)
    across = max(last - first, 1)
    lines = []
    for number, (name, curve) in enumerate(points):
        drawn = " ".join(f"{1000 * (x - first) / across:.1f},{5 + 190 * below(y, low, high):.1f}" for x, y in curve)
        lines.append(f'<polyline class="k{number % COLOURS}" points="{drawn}"><title>{escape(name)}</title></polyline>')
    said = f"{block.title}: {', '.join(name for name, _ in points)}, from {real(low)} to {real(high)}"
    yield f'<div class="curves"><div class="ends"><i>{real(high)}</i><i>{real(low)}</i></div><div class="plot">'
    # The curves on top are those that the first is compared with.
    yield f'<svg viewBox="0 0 1000 200" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
    yield f"{''.join(lines)}</svg></div><span></span>"
    yield f'<div class="ticks"><i>{escape(block.axis)} {count(first)}</i><i>{count(last)}</i></div></div>'
    keys = "".join(f'<span><i class="k{n % COLOURS}"></i>{escape(name)}</span>' for n, (name, _) in enumerate(points))
    yield f'<p class="legend">{keys}</p>'
