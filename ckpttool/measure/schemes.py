"""What the bits of each element type mean, and what is known of a run of elements. Needs no NumPy.

With the sign bit masked off, the order of IEEE bit patterns is the order of magnitudes, and NaN and infinity
are above all numbers. So the greatest magnitude says at once whether a run is finite, and neither bfloat16
nor 8-bit floats need to be decoded.
Sources: IEEE 754; OCP 8-bit floating point specification 1.0 (``fn``), ml_dtypes README (``fnuz``,
``e8m0fnu``).
"""

from __future__ import annotations

import struct
from functools import cache

from ckpttool.dtypes import DType
from ckpttool.frozen import dataclass
from ckpttool.measures import TensorMeasure, sample_step

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
    wide: int = struct.unpack("<Q", struct.pack("<d", value))[0]
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
