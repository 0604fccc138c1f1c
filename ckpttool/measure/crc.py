"""CRC-32 as zip has it: the fastest one at hand, and the sum of two pieces."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache

_POLYNOMIAL = 0xEDB88320


def combine_portably(first: int, second: int, nbytes: int) -> int:
    """``combine`` in plain Python: squared GF(2) matrices, as zlib has it."""
    power = 0
    while nbytes:
        if nbytes & 1:
            first = _times(_zero_bytes(power), first)
        nbytes >>= 1
        power += 1
    return first ^ second


@cache
def _zero_bytes(power: int) -> tuple[int, ...]:
    """The matrix, as 32 columns, that moves a CRC over 2**power zero bytes."""
    if power == 0:
        one_bit = (_POLYNOMIAL, *(1 << i for i in range(31)))
        return _squared(_squared(_squared(one_bit)))
    return _squared(_zero_bytes(power - 1))


def _squared(matrix: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_times(matrix, column) for column in matrix)


def _times(matrix: tuple[int, ...], vector: int) -> int:
    result = 0
    for column in matrix:
        if not vector:
            break
        if vector & 1:
            result ^= column
        vector >>= 1
    return result


try:
    from isal import isal_zlib
except ImportError:  # no wheel for this machine; the answers are the same
    crc32: Callable[..., int] = zlib.crc32
    combine: Callable[[int, int, int], int] = combine_portably
else:
    crc32, combine = isal_zlib.crc32, isal_zlib.crc32_combine
"""``crc32(data, value=0)`` releases the interpreter lock. ``combine(first, second, nbytes)`` is the CRC-32 of
two pieces laid end to end, from theirs; ``nbytes`` is the length of the second."""
