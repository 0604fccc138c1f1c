"""Boxes: the parts of a tensor that lie apart, each with where it begins and how far it goes. Pure geometry.

A chunked tensor (``model.Tensor`` with the layout ``chunked``) names its parts by where they begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ckpttool.frozen import dataclass

Shape = tuple[int, ...]

MOST_PAIRS = 4_000_000
"""Pairs of boxes that are held against each other; real tensors are cut along a grid, which needs none."""


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a tensor: its first element's coordinates, and its sizes."""

    start: Shape
    shape: Shape

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def stop(self) -> Shape:
        return tuple(s + n for s, n in zip(self.start, self.shape, strict=True))


def named(start: Shape) -> str:
    """The name of the part that begins there."""
    return ",".join(map(str, start))


def start_of(name: str) -> Shape | None:
    """Where the part of this name begins; None for a name that is none."""
    numbers = name.split(",") if name else []
    if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in numbers):
        return None
    return tuple(map(int, numbers))


def fits(box: Box, shape: Shape) -> bool:
    """Whether a box lies within a tensor of this shape."""
    if not len(box.start) == len(box.shape) == len(shape) or min((0, *box.start, *box.shape)) < 0:
        return False
    return all(stop <= size for stop, size in zip(box.stop, shape, strict=True))


def uncovered(boxes: Sequence[Box], shape: Shape) -> int:
    """Elements of the shape that no box holds; right where the boxes fit and none overlap."""
    return math.prod(shape) - sum(box.numel for box in boxes)


def overlap(boxes: Sequence[Box]) -> tuple[Box, Box] | None:
    """Two boxes that share elements; None where there are none, or none were found in ``MOST_PAIRS`` pairs.

    Boxes along a grid, which is how tensors are sharded, cost one pass.
    """
    there = [box for box in boxes if box.numel]
    if len(there) < 2 or not there[0].start:
        return (there[0], there[1]) if len(there) > 1 else None
    if _is_grid(there):
        return None
    axis = max(range(len(there[0].start)), key=lambda dim: len({box.start[dim] for box in there}))
    ordered = sorted(there, key=lambda box: box.start[axis])
    left = MOST_PAIRS
    active: list[Box] = []
    for box in ordered:
        active = [one for one in active if one.stop[axis] > box.start[axis]]
        left -= len(active)
        if left < 0:
            return None
        for one in active:
            if _meet(one, box):
                return one, box
        active.append(box)
    return None


def _is_grid(boxes: Sequence[Box]) -> bool:
    """Whether the boxes are different cells of one grid: the same cuts of each dimension for all of them."""
    cuts: list[dict[int, int]] = [{} for _ in boxes[0].start]
    for box in boxes:
        for known, start, size in zip(cuts, box.start, box.shape, strict=True):
            if known.setdefault(start, size) != size:
                return False
    apart = all(a + size <= b for known in cuts for (a, size), (b, _) in pairwise(sorted(known.items())))
    return apart and len({box.start for box in boxes}) == len(boxes)


def _meet(a: Box, b: Box) -> bool:
    return all(max(i, j) < min(i + n, j + m) for i, j, n, m in zip(a.start, b.start, a.shape, b.shape, strict=True))


def intersection(a: Box, b: Box) -> Box | None:
    """The elements that two boxes share, as a box; None if there are none."""
    start = tuple(map(max, a.start, b.start))
    shape = tuple(min(i, j) - s for i, j, s in zip(a.stop, b.stop, start, strict=True))
    return Box(start, shape) if all(n > 0 for n in shape) else None


def run_of_boxes(shape: Shape, first: int, stop: int) -> Iterator[Box]:
    """The row-major elements ``first`` to ``stop`` of a tensor as boxes, in order: at most two for each dimension."""
    if first >= stop:
        return
    inner = math.prod(shape[1:]) if shape else 1
    if not shape:
        yield Box((), ())
        return
    low, high = -(-first // inner), stop // inner
    if low > high:  # within one row
        yield from _within(shape, first // inner, first % inner, stop - first // inner * inner)
        return
    if first % inner:
        yield from _within(shape, low - 1, first % inner, inner)
    if low < high:
        yield Box((low,) + (0,) * (len(shape) - 1), (high - low, *shape[1:]))
    if stop % inner:
        yield from _within(shape, high, 0, stop % inner)


def _within(shape: Shape, row: int, first: int, stop: int) -> Iterator[Box]:
    for box in run_of_boxes(shape[1:], first, stop):
        yield Box((row, *box.start), (1, *box.shape))


def is_row_run(boxes: Sequence[Box], shape: Shape) -> bool:
    """Whether the boxes, in the order of their starts, laid end to end are the tensor's row-major content."""
    row = 0
    for box in sorted(boxes, key=lambda one: one.start):
        if not box.shape or box.shape[1:] != shape[1:] or any(box.start[1:]) or box.start[0] != row:
            return False
        row += box.shape[0]
    return bool(shape) and row == shape[0]


def row_major(shape: Shape) -> Shape:
    """The strides, in elements, of a tensor without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
