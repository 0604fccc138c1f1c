"""What one work unit found, and how pieces of one extent come together. Needs no NumPy."""

from __future__ import annotations

from ckpttool.frozen import dataclass
from ckpttool.measure.crc import combine
from ckpttool.measure.schemes import Part
from ckpttool.measures import SpanMeasure

MOST_RUNS = 64
"""Runs of zero pages that are kept for an extent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one unit found: pieces of extents, parts of tensors, bytes looked at, why reading stopped."""

    source: str
    spans: tuple[tuple[int, SpanMeasure], ...] = ()
    parts: tuple[tuple[int, Part], ...] = ()
    nbytes: int = 0
    failure: str = ""


def joined(a: SpanMeasure, b: SpanMeasure) -> SpanMeasure:
    """Two pieces of one extent, end to end, as one."""
    if not a.read:
        return b
    runs = a.zero_runs
    if runs and b.zero_runs and runs[-1][1] == b.zero_runs[0][0]:
        runs = (*runs[:-1], (runs[-1][0], b.zero_runs[0][1]), *b.zero_runs[1:])
    else:
        runs += b.zero_runs
    return SpanMeasure(a.read + b.read, combine(a.crc32, b.crc32, b.read), runs[:MOST_RUNS])
