"""Elements looked at as unsigned integers: the same few SIMD reductions answer for every float type.

With the sign bit masked off, the order of IEEE bit patterns is the order of magnitudes, and NaN and infinity
are above all numbers. So the greatest magnitude says at once whether a block is finite, and neither bfloat16
nor 8-bit floats need to be decoded. Only blocks that do hold something non-finite are looked at again.
Sources: IEEE 754; OCP 8-bit floating point specification 1.0 (``fn``), ml_dtypes README (``fnuz``,
``e8m0fnu``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ckpttool.dtypes import DType
from ckpttool.measures import TensorMeasure, sample_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bits: TypeAlias = "NDArray[np.unsignedinteger]"
"""Elements as unsigned integers of their width, in the order in which they lie."""

Logical: TypeAlias = "Callable[[NDArray[np.int64]], NDArray[np.int64]]"
"""From places in storage order to row-major indices."""

TINY, HUGE = 1e-30, 1e30


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the bits of an element type mean. ``width`` is in bytes; complex elements are ``pair`` = 2 of
    them.

    ``style`` is ``ieee``, ``fn`` (no infinity, NaN is all ones), ``fnuz`` (NaN is minus zero), ``e8m0``,
    ``bool`` or ``plain`` (no float: only its zeros and constants matter). ``tiny`` and ``huge`` are
    magnitudes.
    """

    width: int
    pair: int
    style: str
    mask: int
    infinity: int = 0
    tiny: int = 0
    huge: int = 0

    @property
    def floating(self) -> bool:
        return self.style not in ("plain", "bool")


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of a run of elements. Two neighbours combine into one, in any grouping.

    ``low`` and ``high`` are finite magnitudes as bits, None if there are none; ``first`` is the first
    element's bits, and ``same`` says that all others equal it.
    """

    numel: int
    first: int
    same: bool
    low: int | None = None
    high: int | None = None
    nan: int = 0
    inf: int = 0
    first_bad: int | None = None
    zeros: int = 0
    tiny: int = 0
    huge: int = 0
    odd: int = 0


@cache
def scheme_of(dtype: DType) -> Scheme:
    """How to look at elements of ``dtype``; packed and sub-byte ones are bytes."""
    if dtype.bits % 8 or dtype.kind not in ("float", "complex"):
        width = dtype.itemsize if dtype.bits % 8 == 0 and dtype.itemsize in (1, 2, 4, 8) else 1
        return Scheme(width, 1, "bool" if dtype.kind == "bool" else "plain", (1 << 8 * width) - 1)
    pair = 2 if dtype.kind == "complex" else 1
    bits = dtype.bits // pair
    style = "e8m0" if "e8m0" in dtype.name else "fnuz" if "fnuz" in dtype.name else "ieee"
    style = "fn" if dtype.name.endswith("e4m3fn") else style
    mask = (1 << bits) - 1 if style == "e8m0" else (1 << bits - 1) - 1
    infinity = ((1 << dtype.exponent) - 1) << dtype.mantissa
    wide = dtype.exponent >= 8 and style == "ieee"
    tiny, huge = (_pattern(x, dtype) if wide else 0 for x in (TINY, HUGE))
    return Scheme(bits // 8, pair, style, mask, infinity, tiny, huge)


def _pattern(value: float, dtype: DType) -> int:
    """The bits of a positive normal number, rounded down."""
    wide = int(np.float64(value).view(np.uint64))
    exponent = (wide >> 52) - 1023 + (1 << dtype.exponent - 1) - 1
    return exponent << dtype.mantissa | (wide & (1 << 52) - 1) >> (52 - dtype.mantissa)


def decoded(bits: int, dtype: DType) -> float:
    """The value of a finite magnitude of a float type."""
    if "e8m0" in dtype.name:
        return 2.0 ** (bits - 127)
    bias = (1 << dtype.exponent - 1) - (0 if "fnuz" in dtype.name else 1)
    exponent, fraction = bits >> dtype.mantissa, bits & (1 << dtype.mantissa) - 1
    if exponent == 0:
        return fraction * 2.0 ** (1 - bias - dtype.mantissa)
    return (1 + fraction * 2.0**-dtype.mantissa) * 2.0 ** (exponent - bias)


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


def combined(a: Part, b: Part) -> Part:
    """Two neighbouring runs as one."""
    lows = [x for x in (a.low, b.low) if x is not None]
    highs = [x for x in (a.high, b.high) if x is not None]
    bads = [x for x in (a.first_bad, b.first_bad) if x is not None]
    return Part(
        a.numel + b.numel,
        a.first,
        a.same and b.same and a.first == b.first,
        min(lows, default=None),
        max(highs, default=None),
        a.nan + b.nan,
        a.inf + b.inf,
        min(bads, default=None),
        a.zeros + b.zeros,
        a.tiny + b.tiny,
        a.huge + b.huge,
        a.odd + b.odd,
    )


def measured(part: Part, dtype: DType, numel: int) -> TensorMeasure:
    """A whole tensor's measure. ``numel`` is a multiple of the elements seen where expanding repeats them."""
    scheme = scheme_of(dtype)
    repeats = numel // part.numel if scheme.floating or dtype.bits % 8 == 0 else 1
    if not scheme.floating:
        zero = part.same and part.first == 0
        return TensorMeasure(numel, constant=part.same, all_zero=zero, odd=part.odd * repeats)
    step = sample_step(part.numel)
    zero = part.high == 0 and not part.nan and not part.inf and scheme.style != "e8m0"
    return TensorMeasure(
        numel,
        part.nan * repeats,
        part.inf * repeats,
        part.first_bad,
        0.0 if part.high is None else decoded(part.high, dtype),
        0.0 if part.low is None else decoded(part.low, dtype),
        part.same,
        zero,
        -(-part.numel // step) * scheme.pair,
        part.tiny,
        part.huge,
        part.zeros,
        0,
    )
