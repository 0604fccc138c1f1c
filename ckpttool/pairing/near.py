"""Partners whose contents changed a little, as training changes them: whole tensors, transposed ones, equal parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.pairing.contents import TELLING
from ckpttool.pairing.entries import One, Rest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = "NDArray[np.float64]"

Shape: TypeAlias = "tuple[int, ...]"

ALIKE = 0.8
"""The correlation from which two contents are one content, trained a little further."""

APART = 0.4
"""How much less than that the next best has to correlate, on either side."""

PARTS = 8
"""Equal parts that a tensor is tried in."""

CROWD = 1500
"""Views of one shape that are compared; more of them are left alone: the cost is quadratic."""


@dataclass(frozen=True, slots=True)
class View:
    """A tensor by its place, its axes in another order where some are given, then rows ``[start, stop)`` of ``dim``.

    Without rows (``stop`` 0) it is the whole.
    """

    place: int
    axes: Shape = ()
    dim: int = 0
    start: int = 0
    stop: int = 0

    @property
    def whole(self) -> bool:
        return not self.stop


Alike: TypeAlias = "Callable[[Sequence[View], Sequence[View]], Matrix]"


@dataclass(frozen=True, slots=True)
class Near:
    """Two views that vary together, and how much more so than with any other."""

    a: View
    b: View
    alike: float
    next: float


def by_nearness(rest: Rest, alike: Alike, *, parts: bool = False) -> list[Near]:
    """Views of both sides that correlate with each other and with nothing else: wholes, or parts of them.

    Parts of a tensor come together or not at all.

    Contents without variation correlate with nothing. Reads a sample of each tensor.
    """
    groups: dict[tuple[str, Shape], tuple[list[View], list[View]]] = defaultdict(lambda: ([], []))
    wanted = tuple({(one.tensor.dtype.kind, one.tensor.shape) for one in side} for side in rest)
    for side in (0, 1):
        for one in rest[side]:
            if one.tensor.numel >= TELLING and one.tensor.dtype.kind in ("float", "complex"):
                for view, shape in _views(one, side == 0, parts):
                    kind = one.tensor.dtype.kind, shape
                    if view.whole or kind in wanted[1 - side]:
                        groups[kind][side].append(view)
    found = [near for ours, theirs in groups.values() for near in _matched(ours, theirs, alike)]
    return _whole(found, rest)


def _views(one: One, turn: bool, parts: bool) -> Iterator[tuple[View, Shape]]:
    """The tensor as it is and transposed where ``turn`` allows it, and with ``parts`` equal parts of both."""
    shape, at = one.tensor.shape, one.side.index
    yield View(at), shape
    turns: list[Shape] = [()]
    if turn and len(shape) == 2 and 1 not in shape:
        yield View(at, (1, 0)), shape[::-1]
        turns.append((1, 0))
    for axes in turns if parts else []:
        turned = shape[::-1] if axes else shape
        for dim, size in enumerate(turned):
            for count in range(2, PARTS + 1):
                if size % count == 0 and size > count:
                    step = size // count
                    piece = (*turned[:dim], step, *turned[dim + 1 :])
                    for start in range(0, size, step):
                        yield View(at, axes, dim, start, start + step), piece


def _matched(ours: Sequence[View], theirs: Sequence[View], alike: Alike) -> Iterator[Near]:
    import numpy as np

    if not ours or not theirs or max(len(ours), len(theirs)) > CROWD:
        return
    scores = np.nan_to_num(np.asarray(alike(ours, theirs), dtype=np.float64))
    if scores.shape != (len(ours), len(theirs)):
        return
    both_parts = np.array([[not x.whole and not y.whole for y in theirs] for x in ours])
    scores[both_parts] = 0.0
    for row, column in zip(*np.nonzero(scores >= ALIKE), strict=True):
        best = float(scores[row, column])
        others = np.concatenate([np.delete(scores[row], column), np.delete(scores[:, column], row)])
        following = float(others.max()) if others.size else 0.0
        if best - following >= APART:
            yield Near(ours[row], theirs[column], best, following)


def _whole(found: Sequence[Near], rest: Rest) -> list[Near]:
    """Those in which every part of a tensor has a partner of its own; the rest says too little."""
    sizes = tuple({one.side.index: one.tensor.shape for one in side} for side in rest)
    kept: list[Near] = []
    parts: dict[tuple[int, int, Shape, int, int], list[Near]] = defaultdict(list)
    for near in found:
        if near.a.whole and near.b.whole:
            kept.append(near)
        else:
            side, view = (0, near.a) if near.b.whole else (1, near.b)
            parts[side, view.place, near.a.axes, view.dim, view.stop - view.start].append(near)
    for (side, place, axes, dim, step), some in parts.items():
        shape = sizes[side][place]
        turned = tuple(shape[axis] for axis in axes) if axes and side == 0 else shape
        views = [near.b if side else near.a for near in some]
        if len({view.start for view in views}) == len(views) == turned[dim] // step:
            kept += sorted(some, key=lambda near: (near.b if side else near.a).start)
    return kept
