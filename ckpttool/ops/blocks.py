"""Copies of transposed arrays, in blocks that fit the processor's caches.

NumPy copies element by element along the target, so each line of a transposed source is fetched once for every
element in it as soon as a column no longer fits the cache: three to four times slower than needed for large matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ckpttool.ops.base import Shape

SMALL = 1 << 18
"""Bytes up to which a plain copy is as fast."""

LINE = 1024
"""Elements of a block along the target's rows."""

ROWS = 512
"""Bytes of a block along the source's rows: eight cache lines, so few are fetched twice."""


def contiguous(array: np.ndarray, workers: int = 1) -> np.ndarray:
    """A row-major array of the same elements: itself where it is one. ``workers`` threads share the copy."""
    if array.flags.c_contiguous:
        return array
    made = np.empty(array.shape, array.dtype)
    copy_into(made, array, workers)
    return made


def copy_into(target: np.ndarray, source: np.ndarray, workers: int = 1) -> None:
    """``target[...] = source`` for arrays of one shape, at near the memory's speed for any order of dimensions."""
    inner = _innermost(source)
    last = source.ndim - 1
    if source.nbytes <= SMALL or inner is None or inner == last or target.strides[last] != target.itemsize:
        target[...] = source
        return
    blocks = _blocks(source.shape, inner, max(1, ROWS // source.itemsize))
    if workers <= 1:
        for block in blocks:
            target[block] = source[block]
        return
    # Assignment between such arrays releases the interpreter lock.
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda block: target.__setitem__(block, source[block]), blocks):
            pass


def _innermost(source: np.ndarray) -> int | None:
    """The dimension along which the source's elements lie closest; None where none has two."""
    long = [d for d, size in enumerate(source.shape) if size > 1 and source.strides[d] != 0]
    return min(long, key=lambda d: (abs(source.strides[d]), -d), default=None)


def _blocks(shape: Shape, inner: int, rows: int) -> Iterator[tuple[slice, ...]]:
    """Cuts along the source's innermost and the target's last dimension; others are cut where these are short."""
    whole = [slice(None)] * len(shape)
    for start in range(0, shape[inner], rows):
        for column in range(0, shape[-1], LINE):
            block = list(whole)
            block[inner] = slice(start, start + rows)
            block[-1] = slice(column, column + LINE)
            yield tuple(block)


def viewed(array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """The array under another shape without a copy; None where its strides do not allow it."""
    if math.prod(shape) != array.size:
        return None
    if array.flags.c_contiguous:
        return array.reshape(shape)
    try:
        return array.reshape(shape, copy=False)
    except (TypeError, ValueError):
        return None
