"""Stored bytes in blocks: mapped where that is safe and pays, else read into this thread's buffers."""

from __future__ import annotations

import ctypes
import mmap
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
    source = source_of(content.run, content.place.source)
    mapped = isinstance(source, LocalFile)
    if source.size <= MAP_FROM or not (isinstance(source, Memory) or (mapped and _madvise() is not None)):
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


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The C library's ``madvise``: unlike Python's it releases the interpreter lock."""
    if sys.platform != "linux":
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    found: Callable[[int, int, int], int] = call
    return found
