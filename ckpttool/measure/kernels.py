"""Elements looked at as unsigned integers: the same few SIMD reductions answer for every float type.

Only blocks that do hold something non-finite are looked at again; see ``schemes`` for why that shows at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ckpttool.measure.schemes import Part, Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bits: TypeAlias = "NDArray[np.unsignedinteger]"
"""Elements as unsigned integers of their width, in the order in which they lie."""

Logical: TypeAlias = "Callable[[NDArray[np.int64]], NDArray[np.int64]]"
"""From places in storage order to row-major indices."""


def view(buffer: memoryview, start: int, numel: int, scheme: Scheme, swapped: bool) -> Bits:
    """``numel`` elements from byte ``start`` of ``buffer``, without a copy unless swapped or unaligned."""
    count = numel * scheme.pair
    found: Bits = np.frombuffer(buffer, f"u{scheme.width}", count, start)
    if swapped and scheme.width > 1:
        return found.byteswap()
    return found if found.flags.aligned else found.copy()


def scan(bits: Bits, scheme: Scheme, base: int, step: int, logical: Logical | None = None) -> Part:
    """Look at a run of at least one element. ``base`` is its first one's place, ``step`` that of samples."""
    pair = scheme.pair
    first = int(bits[0]) | (int(bits[1]) << 8 * scheme.width if pair == 2 else 0)
    if not scheme.floating:
        return _scan_plain(bits, scheme, first)
    numel = len(bits) // pair
    low, high, negative_zero = _magnitudes(bits, scheme)
    same = _constant(bits, pair)
    bad = high >= scheme.infinity if scheme.style == "ieee" else high == scheme.mask
    if negative_zero if scheme.style == "fnuz" else bad:
        return _scan_bad(bits, scheme, base, step, logical, first, same)
    sampled = low == 0 or low < scheme.tiny or high > scheme.huge > 0
    zeros, tiny, huge = _samples(bits, scheme, base, step) if sampled else (0, 0, 0)
    return Part(numel, first, same, low, high, zeros=zeros, tiny=tiny, huge=huge)


def _scan_plain(bits: Bits, scheme: Scheme, first: int) -> Part:
    odd = 0
    if scheme.style == "bool" and int(np.maximum.reduce(bits)) > 1:
        odd = int(np.count_nonzero(bits > 1))
    return Part(len(bits), first, _constant(bits, 1), odd=odd)


def _constant(bits: Bits, pair: int) -> bool:
    """Whether all elements have the same bits; three of them settle it for nearly every tensor."""
    if pair == 2:
        return _constant(bits[::2], 1) and _constant(bits[1::2], 1)
    if not bits[0] == bits[-1] == bits[len(bits) // 2]:
        return False
    return bool(np.minimum.reduce(bits) == np.maximum.reduce(bits))


def _magnitudes(bits: Bits, scheme: Scheme) -> tuple[int, int, bool]:
    """The least and the greatest magnitude, and whether minus zero occurs, from two to four reductions."""
    low, high = int(np.minimum.reduce(bits)), int(np.maximum.reduce(bits))
    mask = scheme.mask
    if high <= mask:
        return low, high, False
    if low > mask:
        return low & mask, high & mask, low == mask + 1
    signed = bits.view(f"i{scheme.width}")
    least_negative = int(np.minimum.reduce(signed)) & mask
    return min(low, least_negative), max(high & mask, int(np.maximum.reduce(signed))), least_negative == 0


def _scan_bad(
    bits: Bits, scheme: Scheme, base: int, step: int, logical: Logical | None, first: int, same: bool
) -> Part:
    """The same for a run that holds NaN or infinity: counted exactly, element by element."""
    magnitudes = bits & bits.dtype.type(scheme.mask)
    nan, inf = _non_finite(bits, magnitudes, scheme)
    bad = nan | inf
    finite = magnitudes[~bad]
    low, high = (int(finite.min()), int(finite.max())) if len(finite) else (None, None)
    if scheme.pair == 2:
        nan, inf = nan[::2] | nan[1::2], inf[::2] | inf[1::2]
    inf &= ~nan
    places = np.flatnonzero(nan | inf) + base
    first_bad = int(places[0] if logical is None else logical(places).min())
    zeros, tiny, huge = _samples(bits, scheme, base, step)
    counts = int(np.count_nonzero(nan)), int(np.count_nonzero(inf))
    return Part(len(nan), first, same, low, high, *counts, first_bad, zeros, tiny, huge)


def _non_finite(bits: Bits, magnitudes: Bits, scheme: Scheme) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if scheme.style == "ieee":
        return magnitudes > scheme.infinity, magnitudes == scheme.infinity
    nan = bits == scheme.mask + 1 if scheme.style == "fnuz" else magnitudes == scheme.mask
    return nan, np.zeros(len(bits), bool)


def _samples(bits: Bits, scheme: Scheme, base: int, step: int) -> tuple[int, int, int]:
    """Zeros, tiny and huge finite values among the elements whose place is a multiple of ``step``."""
    chosen = bits.reshape(-1, scheme.pair)[-base % step :: step].ravel() & bits.dtype.type(scheme.mask)
    zeros = 0 if scheme.style == "e8m0" else len(chosen) - int(np.count_nonzero(chosen))
    if not scheme.huge:
        return zeros, 0, 0
    tiny = int(np.count_nonzero(chosen < scheme.tiny)) - zeros
    huge = int(np.count_nonzero((chosen > scheme.huge) & (chosen < scheme.infinity)))
    return zeros, tiny, huge
