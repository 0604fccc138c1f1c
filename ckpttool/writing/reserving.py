"""Room on the disk for a file whose size is known before it is written."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache

LEAST = 32 << 20
"""Bytes of a file for which room is asked; small ones are left alone."""

_KEEP_SIZE = 1
"""``FALLOC_FL_KEEP_SIZE``: the file does not get longer, there is room behind its end. Source: ``linux/falloc.h``."""


@contextlib.contextmanager
def room(descriptor: int, nbytes: int) -> Iterator[None]:
    """Within this block the file has room for so many bytes, in one piece where the disk has such (Linux alone).

    The file system then need not look for room with every block that it writes. What was not filled is given back.
    Failures are for those who write to report.
    """
    reserved = sys.platform == "linux" and nbytes >= LEAST and _reserved(descriptor, nbytes)
    yield
    if reserved:
        size = os.fstat(descriptor).st_size
        if size < nbytes:
            os.ftruncate(descriptor, size)


def _reserved(descriptor: int, nbytes: int) -> bool:
    allocate = _fallocate()
    return allocate is not None and allocate(descriptor, _KEEP_SIZE, 0, nbytes) == 0


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """The system's own call: ``posix_fallocate`` of the C library writes zeros where a file system has none."""
    try:
        import ctypes

        library = ctypes.CDLL(None)
        found = getattr(library, "fallocate64", None) or library.fallocate
    except (ImportError, OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    made: Callable[[int, int, int, int], int] = found
    return made
