"""Bits as numbers: float64 values of any element type."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.dtypes import DType
from ckpttool.measure.kernels import Bits
from ckpttool.measure.schemes import decoded, scheme_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def floats(bits: Bits, dtype: DType) -> NDArray[np.float64]:
    """Elements as float64, exact but for 64-bit integers; a complex element as its two components."""
    if dtype.kind in ("float", "complex"):
        return _from_float(bits, dtype)
    return numbers(bits, dtype).astype(np.float64)


def numbers(bits: Bits, dtype: DType) -> NDArray[np.integer] | NDArray[np.float64]:
    """Elements as the integers or float64 values that they are."""
    if dtype.kind in ("float", "complex"):
        return _from_float(bits, dtype)
    signed = dtype.kind == "int" or dtype.name in ("qint8", "qint32")
    return bits.view(f"i{bits.itemsize}") if signed else bits


def _from_float(bits: Bits, dtype: DType) -> NDArray[np.float64]:
    if dtype.name == "bfloat16":
        bits = np.left_shift(bits, 16, dtype=np.uint32)
    if bits.itemsize == 1:
        return _table(dtype)[bits]
    with np.errstate(invalid="ignore"):  # signaling NaN
        return bits.view(f"f{bits.itemsize}").astype(np.float64)


@cache
def _table(dtype: DType) -> NDArray[np.float64]:
    """All 256 values of an 8-bit float."""
    scheme = scheme_of(dtype)
    return np.array([_value(code, dtype, scheme.style, scheme.mask, scheme.infinity) for code in range(256)])


def _value(code: int, dtype: DType, style: str, mask: int, infinity: int) -> float:
    magnitude = code & mask
    nan = {"ieee": magnitude > infinity, "fnuz": code == 0x80}.get(style, magnitude == mask)
    if nan:
        return float("nan")
    value = float("inf") if style == "ieee" and magnitude == infinity else decoded(magnitude, dtype)
    return -value if code > mask else value
