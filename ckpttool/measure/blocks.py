"""Stored bytes in blocks: mapped where that is safe and pays, else read into this thread's buffers."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.measure.handles import source_of
from ckpttool.measure.leaves import Content
from ckpttool.measure.reading import buffer_of, opened
from ckpttool.source import MAP_FROM, LocalFile, Memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAP_LEAST = 1 << 20
"""Bytes below which reading costs less than mapping."""

_POPULATE_READ = 22
"""``MADV_POPULATE_READ`` of Linux 5.14: maps pages, and answers a failing disk with an error, not a signal."""


def blocks(content: Content, size: int, slot: int) -> Iterator[NDArray[np.uint8]]:
    """The bytes of a contiguous, stored content in blocks of ``size`` bytes, each valid until the next.

    The last are short or missing where the file ends early. Raises ``Unreadable``.
    """
    whole, mapped = _whole(content)
    for start in range(content.start, content.stop, size):
        stop = min(start + size, content.stop)
        piece = None if whole is None or stop > len(whole) else whole[start:stop]
        if piece is not None and (not mapped or _advise(piece, _POPULATE_READ)):
            try:
                yield piece
            finally:
                if mapped:  # else every page looked at would count as this process's memory
                    _advise(piece, mmap.MADV_DONTNEED)
            continue
        space = buffer_of(stop - start, slot)
        got = opened(content.run, content.place, whole=False).readinto(start, space)
        yield np.frombuffer(space, np.uint8, got)
        if got < stop - start:
            return


def _whole(content: Content) -> tuple[NDArray[np.uint8] | None, bool]:
    """All bytes of the place without a copy, and whether they are mapped; None where reading is better."""
    if content.place.inline is not None:
        return np.frombuffer(content.place.inline, np.uint8), False
    if content.place.boxed is not None:
        return None, False
    source = source_of(content.run, content.place.source)
    mapped = isinstance(source, LocalFile)
    small = content.stop - content.start < MAP_LEAST or source.size <= MAP_FROM
    if small or not (isinstance(source, Memory) or (mapped and _madvise() is not None)):
        return None, False
    try:
        return np.frombuffer(source.window(0, source.size), np.uint8), mapped
    except (OSError, ValueError):  # no room in the address space, or a file system that cannot map
        return None, False


def _advise(piece: NDArray[np.uint8], advice: int) -> bool:
    call = _madvise()
    address = piece.ctypes.data
    below = address % mmap.PAGESIZE
    return call is not None and call(address - below, len(piece) + below, advice) == 0


def _madvise() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    return libc("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@cache
def libc(name: str, *arguments: type) -> Callable[..., int] | None:
    """A function of the C library that gives an int: unlike Python's own it releases the interpreter lock."""
    if os.name != "posix":
        return None
    call = getattr(ctypes.CDLL(None), name, None)
    if call is not None:
        call.argtypes = arguments
    found: Callable[..., int] | None = call
    return found
