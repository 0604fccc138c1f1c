"""The compiled kernel, where the package was built with one: ``deltas.tally`` of many leaves, to the bit."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.changes import Tolerance
from ckpttool.dtypes import DType
from ckpttool.measure.deltas import Tally
from ckpttool.measure.leaves import LEAF

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckpttool.measure.kernels import Bits

VERSION = 1
"""Of the functions' signatures: a library that an older checkout left behind is not used."""

LIBRARY = Path(__file__).parents[1] / "_kernel.so"

_FUNCTIONS = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class _Found(ctypes.Structure):
    """As ``_kernel.c`` has it."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in "changed beyond finite first".split()),
        *((name, ctypes.c_int64) for name in "new_nan lost_nan new_inf lost_inf".split()),
        ("max_ulp", ctypes.c_uint64),
        ("max_abs", ctypes.c_double),
        ("max_rel", ctypes.c_double),
    )


class _Tolerance(ctypes.Structure):
    _fields_ = (
        ("atol", ctypes.c_double),
        ("rtol", ctypes.c_double),
        ("ulp", ctypes.c_uint64),
        ("bitwise", ctypes.c_int64),
    )


def compiled(dtype: DType) -> bool:
    """Whether the kernel compares this type; ``CKPTTOOL_NATIVE=0`` in the environment turns it off."""
    return dtype.name in _FUNCTIONS and _library() is not None


def tally(a: Bits, b: Bits, dtype: DType, tolerance: Tolerance, begin: int) -> Tally:
    """What ``deltas.tally`` says leaf by leaf of two runs of one type that ``compiled`` answers for.

    Releases the interpreter lock. ``a`` and ``b`` are aligned, of one length, in the machine's byte order.
    """
    library = _library()
    assert library is not None
    found = _Found(first=-1)
    ulp = min(tolerance.ulp, (1 << 64) - 1)
    near = _Tolerance(tolerance.atol, tolerance.rtol, ulp, tolerance.bitwise)
    sums = np.empty((-(-len(a) // LEAF), 5))
    compare: Callable[..., None] = getattr(library, f"ckpttool_{_FUNCTIONS[dtype.name]}")
    compare(a.ctypes.data, b.ctypes.data, len(a), ctypes.byref(near), ctypes.byref(found), sums.ctypes.data)
    return Tally(
        compared=len(a),
        changed=found.changed,
        beyond=found.beyond,
        finite=found.finite,
        max_abs=found.max_abs,
        max_rel=found.max_rel,
        max_ulp=found.max_ulp,
        first=None if found.first < 0 else begin + found.first,
        new_nan=found.new_nan,
        lost_nan=found.lost_nan,
        new_inf=found.new_inf,
        lost_inf=found.lost_inf,
        sums=tuple((s[0], s[1], s[2], s[3], s[4]) for s in (sums + 0.0).tolist()),
    )


@cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get("CKPTTOOL_NATIVE") == "0" or sys.byteorder != "little" or not LIBRARY.exists():
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
        if library.ckpttool_kernel_version() != VERSION:
            return None
        for name in _FUNCTIONS.values():
            function = getattr(library, f"ckpttool_{name}")
            function.restype = None
            function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 3)
    except (OSError, AttributeError):  # built for another machine
        return None
    return library
