"""Elements as numbers, and numbers as elements: decoding to, and rounding from, what NumPy computes with.

Numbers are float32 for float types of up to 32 bits, float64, integers of the element's own width, bool, complex64
and complex128. Rounding is that of torch 2.13 on a CPU: to nearest, ties to even, through float32 for all types
narrower than it, so twice from float64. ``float8_e4m3fn`` saturates, other 8-bit floats overflow to infinity or NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ckpttool.dtypes import DType
from ckpttool.expressions import OpError
from ckpttool.measure.schemes import decoded, scheme_of
from ckpttool.measure.values import numbers
from ckpttool.ops.blocks import contiguous

BLOCK = 1 << 16
"""Elements that are translated at a time: what lies between stays in the cache."""


def carrier(dtype: DType) -> np.dtype:
    """The NumPy type that holds an element's bits: unsigned of its width, complex128 for 16 bytes."""
    return np.dtype("c16" if dtype.itemsize == 16 else f"u{max(dtype.itemsize, 1)}")


def viewed(array: np.ndarray, target: np.dtype | str) -> np.ndarray:
    """The same bytes as elements of another type."""
    found: np.ndarray = array.view(target)
    return found


def decode(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """Elements as numbers; a view where the bits are those of a NumPy type. Every value is exact."""
    if dtype.kind == "bool":
        return np.asarray(bits != 0, bool)
    if dtype.kind == "int":
        return viewed(bits, f"i{dtype.itemsize}")
    native = {"float32": "f4", "float64": "f8", "complex64": "c8", "complex128": "c16"}
    if dtype.kind == "uint" or dtype.name in native:
        return viewed(bits, native.get(dtype.name, bits.dtype))
    if dtype.name == "complex32":
        halves = contiguous(bits).reshape(-1).view("u2")
        pairs = _blockwise(halves, "f4", lambda block: _widened(block, "float16"))
        return viewed(pairs, "c8").reshape(bits.shape)
    return _blockwise(bits, "f4", lambda block: _widened(block, dtype.name, dtype))


def encode(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Numbers as the bits of elements of ``dtype``.

    Raises ``OpError`` for a float that an integer type has no value for.
    """
    if dtype.kind == "bool":
        return viewed(np.not_equal(array, 0), "u1")
    if dtype.kind == "complex":
        return _encode_complex(array, dtype)
    target = carrier(dtype)
    if dtype.kind in ("int", "uint"):
        if array.dtype.kind == "f":
            return _blockwise(array, target, lambda block: _truncated(block, dtype))
        return viewed(array.astype(target.str.replace("u", "i") if dtype.kind == "int" else target), target)
    if dtype.name == "float64":
        return viewed(_quietly(array, "f8"), target)
    if dtype.name == "float32":
        return viewed(_quietly(array, "f4"), target)
    return _blockwise(array, target, lambda block: _narrowed(_quietly(block, "f4"), dtype))


def _blockwise(array: np.ndarray, target: np.dtype | str, translate: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The array translated piece by piece, so that no more than the result is held beside it."""
    flat = contiguous(array).reshape(-1)
    made = np.empty(flat.shape, target)
    for start in range(0, len(flat), BLOCK):
        made[start : start + BLOCK] = translate(flat[start : start + BLOCK])
    return made.reshape(array.shape)


def _quietly(array: np.ndarray, target: str) -> np.ndarray:
    """``astype`` without a word about overflow and signaling NaN."""
    with np.errstate(all="ignore"):
        return array.astype(target, copy=False)


def _encode_complex(array: np.ndarray, dtype: DType) -> np.ndarray:
    target = carrier(dtype)
    if dtype.name == "complex32":
        pairs = contiguous(_quietly(array, "c8")).reshape(-1).view("f4")
        halves = _blockwise(pairs, "u2", lambda block: _quietly(block, "f2").view("u2"))
        return viewed(halves, target).reshape(array.shape)
    return viewed(_quietly(array, "c8" if dtype.name == "complex64" else "c16"), target)


def _widened(bits: np.ndarray, name: str, dtype: DType | None = None) -> np.ndarray:
    if name == "bfloat16":
        return viewed(np.left_shift(bits, 16, dtype=np.uint32), "f4")
    if name == "float16":
        return _quietly(bits.view("f2"), "f4")
    assert dtype is not None
    return _eight_bit_values(dtype).take(bits)


@cache
def _eight_bit_values(dtype: DType) -> np.ndarray:
    return numbers(np.arange(256, dtype="u1"), dtype).astype("f4")


def _narrowed(array: np.ndarray, dtype: DType) -> np.ndarray:
    """float32 as 16-bit or 8-bit floats."""
    if dtype.name == "float16":
        return viewed(_quietly(array, "f2"), "u2")
    bits = array.view("u4")
    if dtype.name == "bfloat16":
        return _upper_halves(bits, np.isnan(array))
    # Eight significant bits and whether anything follows them decide how fewer than seven are rounded.
    keys: np.ndarray = (bits >> 16) | ((bits & 0xFFFF) != 0)
    return np.take(_eight_bit_codes(dtype), keys)


def _upper_halves(bits: np.ndarray, nan: np.ndarray) -> np.ndarray:
    """float32 as bfloat16, which is its upper half, rounded."""
    rounded: np.ndarray = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    if nan.any():
        # Rounding could carry a NaN's last bit into the exponent; its sign and first digits are kept.
        rounded = np.where(nan, bits | 0x400000, rounded)
    rounded >>= 16
    return rounded


@cache
def _eight_bit_codes(dtype: DType) -> np.ndarray:
    """The code of an 8-bit float for each upper half of a float32, its last bit saying if more follows."""
    keys = np.arange(1 << 16, dtype="u4")
    if dtype.name == "float8_e8m0fnu":
        exponent, fraction = (keys >> 7) & 0xFF, keys & 0x7F
        up = (fraction > 0x40) | ((fraction == 0x40) & (exponent > 0))
        found: np.ndarray = np.minimum(exponent + up, 0xFF).astype("u1")
        return found
    values = _quietly((keys << 16).view("f4"), "f8")
    codes = _nearest(np.abs(values), dtype)
    negative = np.signbit(values)
    if "fnuz" in dtype.name:
        nan = np.isnan(values) | (codes > scheme_of(dtype).mask)
        signed = np.where(negative & (codes > 0), codes | 0x80, codes)
        return np.asarray(np.where(nan, 0x80, signed), "u1")
    codes = np.where(np.isnan(values), 0x7F, codes)
    return np.asarray(codes | np.where(negative, 0x80, 0), "u1")


def _nearest(magnitudes: np.ndarray, dtype: DType) -> np.ndarray:
    """Codes of the nearest magnitudes, ties to the even code; one past the greatest where it overflows."""
    scheme = scheme_of(dtype)
    greatest = {"ieee": scheme.infinity - 1, "fn": scheme.mask - 1}.get(scheme.style, scheme.mask)
    values = np.array([decoded(code, dtype) for code in range(greatest + 1)])
    step = values[-1] - values[-2]
    middles = (values + np.append(values[1:], values[-1] + step)) / 2
    below = np.searchsorted(middles, magnitudes, "left")
    tied = middles[np.minimum(below, greatest)] == magnitudes
    codes = np.where(tied & (below % 2 == 1), below + 1, below)
    return np.minimum(codes, greatest) if dtype.name == "float8_e4m3fn" else codes


def _truncated(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats without their fraction, in an integer type."""
    low = -(2.0 ** (dtype.bits - 1)) if dtype.kind == "int" else 0.0
    past = 2.0 ** (dtype.bits - (dtype.kind == "int"))
    whole = np.trunc(array)
    fits = (whole >= low) & (whole < past)
    if not fits.all():
        value = float(array[np.argmin(fits)])
        raise OpError(f"cast: {value} is outside of {dtype.name}, from {int(low)} to {int(past) - 1}")
    return viewed(whole.astype(f"{'i' if dtype.kind == 'int' else 'u'}{dtype.itemsize}"), f"u{dtype.itemsize}")
