"""Full statistics of tensors' logical content, for people who look at a checkpoint rather than check it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.dtypes import DType
from ckpttool.errors import Unreadable
from ckpttool.measure import handles
from ckpttool.measure.leaves import Content, content_of, leaves
from ckpttool.measure.running import Progress, pool, throttled
from ckpttool.measure.values import floats
from ckpttool.measures import Statistics
from ckpttool.model import Checkpoint
from ckpttool.pool import ordered_map
from ckpttool.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 16


def statistics(
    checkpoint: Checkpoint,
    indices: Iterable[int],
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    sources: Iterable[Source] = (),
) -> dict[int, Statistics]:
    """Statistics by node index; tensors that are not wholly readable, packed or not strided are left out.

    Reads each tensor twice: the second pass needs the mean and the range of the first. A complex element
    counts as its two components. The same for every executor; ``executor`` is None for this thread alone.
    """
    with handles.run(sources) as run:
        found = ((index, content_of(checkpoint, index, run)) for index in indices)
        known = {index: content for index, content in found if content is not None}
        report = throttled(progress, sum(content.tensor.nbytes for content in known.values()))
        results: dict[int, Statistics] = {}
        with pool(executor, sum(content.tensor.nbytes for content in known.values())) as chosen:
            done = ordered_map(_statistics, known.values(), chosen)
            for (index, content), result in zip(known.items(), done, strict=True):
                report(content.tensor.nbytes)
                if result is not None:
                    results[index] = result
        return results


def _statistics(content: Content) -> Statistics | None:
    try:
        return _two_passes(content)
    except Unreadable:
        return None


def _two_passes(content: Content) -> Statistics | None:
    dtype = content.tensor.dtype
    seen = nan = inf = zeros = 0
    low, high = math.inf, -math.inf
    sums: list[float] = []
    for leaf in leaves(content):
        values = floats(leaf, dtype)
        finite = values[np.isfinite(values)]
        seen += len(values)
        nan += int(np.count_nonzero(np.isnan(values)))
        inf += int(np.count_nonzero(np.isinf(values)))
        zeros += len(finite) - int(np.count_nonzero(finite))
        low = min(low, finite.min(initial=math.inf).item())
        high = max(high, finite.max(initial=-math.inf).item())
        sums.append(_sum(finite))
    pair = 2 if dtype.kind == "complex" else 1
    if seen != content.tensor.numel * pair:
        return None
    count = seen - nan - inf
    if not count:
        return Statistics(content.tensor.numel, nan, inf, 0, 0.0, 0.0, 0.0, 0.0, (0,) * BINS)
    mean = _total(sums) / count
    std, bins = _spread(content, dtype, mean, low, high, count)
    return Statistics(content.tensor.numel, nan, inf, zeros, low, high, mean, std, bins)


def _spread(
    content: Content, dtype: DType, mean: float, low: float, high: float, count: int
) -> tuple[float, tuple[int, ...]]:
    """The standard deviation of the population, and the histogram."""
    squares: list[float] = []
    bins = np.zeros(BINS, np.int64)
    width = high / BINS - low / BINS
    for leaf in leaves(content):
        values = floats(leaf, dtype)
        finite = values[np.isfinite(values)]
        with np.errstate(over="ignore", invalid="ignore"):
            squares.append(_sum((finite - mean) ** 2))
            places = (finite / width - low / width) if width else finite * 0
        bins += np.bincount(np.clip(places, 0, BINS - 1).astype(np.int64), minlength=BINS)
    return math.sqrt(_total(squares) / count), tuple(bins.tolist())


def _sum(values: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(values.sum())


def _total(sums: list[float]) -> float:
    """The exact sum, rounded once; infinite or NaN where float64 cannot hold it."""
    try:
        return math.fsum(sums)
    except (OverflowError, ValueError):
        return math.nan if -math.inf in sums else math.inf
