"""Partners whose axes stand in another order, proved by their content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import TypeAlias

from ckpttool.pairing.contents import TELLING, Slices, flat
from ckpttool.pairing.entries import Couple, One, Rest, without

Axes: TypeAlias = "tuple[int, ...]"
Turned: TypeAlias = Callable[[Sequence[tuple[int, Axes]]], Mapping[tuple[int, Axes], str]]

RANK = 4
"""Axes of a tensor whose every order is tried: kernels of 2-d convolutions have as many."""


def by_turning(
    rest: Rest, digests: Mapping[int, str], turned: Turned, slices: Slices
) -> tuple[list[tuple[Couple, Axes]], Rest]:
    """Couples of which b's is a's with its axes in the order given, where no other tensor of either rest fits.

    ``digests`` are those of b's tensors by place; ``turned`` gives those of a's after a permutation of their axes.
    What is the same along an axis proves nothing and is left.
    """
    shapes: dict[tuple[str, Axes], dict[str, list[One]]] = defaultdict(lambda: defaultdict(list))
    for one in rest[1]:
        if one.side.index in digests and one.tensor.numel >= TELLING:
            shapes[one.tensor.dtype.name, one.tensor.shape][digests[one.side.index]].append(one)
    asked = [(one, axes) for one in rest[0] for axes in _orders(one.tensor.shape)]
    asked = [(one, axes) for one, axes in asked if (one.tensor.dtype.name, _shape(one, axes)) in shapes]
    texts = turned([(one.side.index, axes) for one, axes in asked]) if asked else {}
    fits: list[tuple[Couple, Axes]] = []
    for one, axes in asked:
        text = texts.get((one.side.index, axes), "")
        same = shapes[one.tensor.dtype.name, _shape(one, axes)].get(text, [])
        # Two are as many as any: neither is the only one.
        fits += [((one, other), axes) for other in same[:2]]
    found = [fit for fit in _only(fits) if not flat("a", fit[0][0], slices)]
    return found, without(rest, [couple for couple, _ in found])


def _orders(shape: Axes) -> Iterator[Axes]:
    """Orders of the axes other than the one they have, axes of size 1 left where they would change nothing."""
    if 2 <= len(shape) <= RANK:
        yield from (axes for axes in permutations(range(len(shape))) if axes != tuple(range(len(shape))))


def _shape(one: One, axes: Axes) -> Axes:
    return tuple(one.tensor.shape[axis] for axis in axes)


def _only(fits: Sequence[tuple[Couple, Axes]]) -> list[tuple[Couple, Axes]]:
    """Fits of which both sides have but one."""
    ours: dict[int, int] = defaultdict(int)
    theirs: dict[int, int] = defaultdict(int)
    for (a, b), _ in fits:
        ours[id(a)] += 1
        theirs[id(b)] += 1
    return [fit for fit in fits if ours[id(fit[0][0])] == 1 and theirs[id(fit[0][1])] == 1]
