"""Two leaves of any element types as float64 values, with what float64 cannot say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ckpttool.dtypes import DTYPES, DType
from ckpttool.frozen import dataclass
from ckpttool.measure.kernels import Bits
from ckpttool.measure.schemes import decoded, scheme_of
from ckpttool.measure.values import floats, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sides:
    """Two leaves as float64 values, with what float64 cannot say: which differ, how far, in which units."""

    a: Floats
    b: Floats
    changed: Flags
    distance: Floats | None = None
    ulps: Bits | None = None


def has_ulps(x: DType, y: DType) -> bool:
    """Whether values of these types are apart by units in the last place."""
    return {x.kind, y.kind} <= {"float", "complex"}


def sides_of(a: Bits, b: Bits, x: DType, y: DType, pair: int) -> Sides:
    """Leaf ``a`` of type ``x`` beside ``b`` of type ``y``; ``pair`` is 2 if one of them is complex, else 1."""
    if x.bits % 8:
        return _packed(a, b, x)
    if has_ulps(x, y):
        return _both_float(a, b, x, y, pair)
    if not {x.kind, y.kind} & {"float", "complex"}:
        return _neither_float(_integers(a, x), _integers(b, y))
    left, right = _in_pairs(floats(a, x), x, pair), _in_pairs(floats(b, y), y, pair)
    left, right = _same_length(left, right)
    whole, other, values = (a, x, right) if x.kind not in ("float", "complex") else (b, y, left)
    return Sides(left, right, (left != right) | _rounded(numbers(whole, other), values, pair))


def _packed(a: Bits, b: Bits, dtype: DType) -> Sides:
    """Codes narrower than a byte: of floats, which have neither NaN nor infinity, or of integers."""
    a, b = _same_length(a, b)
    if dtype.kind != "float":
        return _neither_float(a, b)
    sign = 1 << dtype.bits - 1
    table = np.array([decoded(code & sign - 1, dtype) * (-1 if code & sign else 1) for code in range(2 * sign)])
    low, high = a & (sign - 1), b & (sign - 1)
    apart = np.maximum(low, high) - np.minimum(low, high)
    return Sides(table[a], table[b], a != b, ulps=np.where((a ^ b) & sign, low + high, apart))


def _both_float(a: Bits, b: Bits, x: DType, y: DType, pair: int) -> Sides:
    if x == y:
        a, b = _same_length(a, b)
        return Sides(floats(a, x), floats(b, y), a != b, ulps=ulps_between(a, b, x))
    left, right = _in_pairs(floats(a, x), x, pair), _in_pairs(floats(b, y), y, pair)
    left, right = _same_length(left, right)
    changed = (left.view(np.uint64) != right.view(np.uint64)) & ~(np.isnan(left) & np.isnan(right))
    wider = common(x, y)
    kind = f"u{wider.itemsize}"
    units = [side.astype(f"f{wider.itemsize}").view(kind) for side in (left, right)]
    return Sides(left, right, changed, ulps=ulps_between(units[0], units[1], wider))


def common(x: DType, y: DType) -> DType:
    """The IEEE type that two different float types widen to without rounding."""
    return DTYPES["float64" if max(x.mantissa, y.mantissa) > 23 else "float32"]


def ulps_between(a: Bits, b: Bits, dtype: DType) -> Bits:
    """Steps of the type's own grid from one to the other; meaningless where one is not finite."""
    mask = a.dtype.type(scheme_of(dtype).mask)
    low, high = a & mask, b & mask
    apart = np.maximum(low, high) - np.minimum(low, high)
    return np.where((a ^ b) > mask, low + high, apart)


def _neither_float(a: NDArray[np.integer], b: NDArray[np.integer]) -> Sides:
    a, b = _same_length(a, b)
    left, right = (side.astype("i8" if side.dtype.kind == "i" else "u8") for side in (a, b))
    if left.dtype == right.dtype:
        apart = np.maximum(left, right).view("u8") - np.minimum(left, right).view("u8")
        return Sides(left.astype(np.float64), right.astype(np.float64), left != right, apart.astype(np.float64))
    signed, unsigned = (left, right) if left.dtype.kind == "i" else (right, left)
    negative = signed < 0
    size = np.where(negative, np.uint64(0) - signed.view("u8"), signed.view("u8"))
    apart = np.maximum(size, unsigned) - np.minimum(size, unsigned)
    distance = np.where(negative, size.astype(np.float64) + unsigned.astype(np.float64), apart.astype(np.float64))
    changed = negative | (size != unsigned)
    return Sides(left.astype(np.float64), right.astype(np.float64), changed, distance)


def _integers(bits: Bits, dtype: DType) -> NDArray[np.integer]:
    found = numbers(bits, dtype)
    assert found.dtype.kind != "f"
    return found  # type: ignore[return-value]


def _rounded(whole: NDArray[np.integer] | Floats, values: Floats, pair: int) -> Flags:
    """Which integers only equal the value beside them because float64 rounds them."""
    limit = 2.0**63 if whole.dtype.kind == "i" else 2.0**64
    count = min(len(whole), len(values) // pair)
    real = values[::pair][:count]
    found = np.zeros(count * pair, bool)
    large = np.flatnonzero((np.abs(real) >= 2.0**53) & (np.abs(real) <= limit))
    if len(large) and whole.dtype.itemsize == 8:
        found[large * pair] = [int(real[i]) != int(whole[i]) for i in large.tolist()]
    return found


def _in_pairs(values: Floats, dtype: DType, pair: int) -> Floats:
    """Components: a real number beside complex ones has an imaginary part of 0."""
    if dtype.kind == "complex" or pair == 1:
        return values
    return np.stack([values, np.zeros_like(values)], axis=1).reshape(-1)


def _same_length(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:  # type: ignore[type-arg]
    count = min(len(a), len(b))
    return a[:count], b[:count]
