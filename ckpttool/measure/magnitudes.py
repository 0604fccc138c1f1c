"""How large changes of elements are, by powers of ten: a sample that costs next to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from ckpttool.errors import Unreadable
from ckpttool.measure import handles
from ckpttool.measure.leaves import content_of, leaves
from ckpttool.measure.values import floats
from ckpttool.model import Checkpoint, Tensor
from ckpttool.source import Source

MOST = 128
"""Pairs that are looked at."""

SAMPLE = 8192
"""Elements of each side of a pair."""

FAINTEST, STRONGEST = -12, 6
"""Powers of ten; what is beyond counts with the last."""


def magnitudes(
    a: Checkpoint, b: Checkpoint, pairs: Sequence[tuple[int, int]], *, sources: Iterable[Source] = ()
) -> dict[int, int]:
    """Changed elements by the power of ten below their absolute change, in a sample of the pairs' content.

    ``pairs`` are node indices of tensors of one shape. Looked at are the first ``SAMPLE`` elements, row-major, of
    ``MOST`` pairs spread evenly; what is NaN or infinite on a side is left out. Never raises for what a file
    holds or lacks. Reads at most 65,536 elements of each.
    """
    step = max(1, -(-len(pairs) // MOST))
    found: Counter[int] = Counter()
    with handles.run(sources) as token:
        for pair in pairs[::step]:
            found.update(_pair(a, b, pair, token))
    return dict(sorted(found.items()))


def _pair(a: Checkpoint, b: Checkpoint, pair: tuple[int, int], token: str) -> dict[int, int]:
    sides = []
    for checkpoint, index in zip((a, b), pair, strict=True):
        content, tensor = content_of(checkpoint, index, token), checkpoint.nodes[index]
        if content is None or not isinstance(tensor, Tensor):
            return {}
        try:
            sides += [floats(leaf[:SAMPLE].copy(), tensor.dtype) for leaf in islice(leaves(content), 1)]
        except Unreadable:
            return {}
    if len(sides) < 2 or len(sides[0]) != len(sides[1]):
        return {}
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(sides[1] - sides[0])
    apart = apart[np.isfinite(apart) & (apart > 0)]
    powers = np.clip(np.floor(np.log10(apart)), FAINTEST, STRONGEST).astype(np.int64)
    values, counts = np.unique(powers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


__all__ = ["magnitudes"]
