"""Bytes for measuring: a file's, a deflated record's as it inflates, or memory's; and reusable buffers."""

from __future__ import annotations

import threading
import zlib
from functools import partial
from typing import Protocol

from ckpttool.errors import Unreadable
from ckpttool.measure.boxed import BoxedBytes
from ckpttool.measure.handles import source_of
from ckpttool.measure.plan import Place
from ckpttool.source import Memory, Source

OVERLAP = 15
"""Bytes read past a block, so that an element that begins in it is whole: the widest has 16."""

_buffers = threading.local()


class Readable(Protocol):
    """The one thing that measuring needs of a source."""

    def readinto(self, start: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``start``; the number of bytes read, short only at the end."""
        ...


def buffer_of(nbytes: int, slot: int = 0) -> memoryview:
    """One of this thread's buffers, used again by its next unit."""
    spaces: dict[int, bytearray] | None = getattr(_buffers, "spaces", None)
    if spaces is None:
        spaces = _buffers.spaces = {}
    space = spaces.get(slot)
    if space is None or len(space) < nbytes:
        space = spaces[slot] = bytearray(nbytes)
    return memoryview(space)[:nbytes]


def opened(token: str, place: Place, *, whole: bool) -> Readable:
    """The bytes of a place; ``whole`` if they are not wanted in order."""
    if place.inline is not None:
        return Memory(place.inline)
    if place.boxed is not None:
        return BoxedBytes(place.boxed, partial(source_of, token))
    source = source_of(token, place.source)
    if place.deflated is None:
        return source
    inflated = Inflated(source, place)
    if not whole:
        return inflated
    data = bytearray(place.size)
    return Memory(memoryview(data)[: inflated.readinto(0, memoryview(data))])


class Inflated:
    """A deflated record, inflated from front to back in pieces and never past its declared size."""

    PIECE = 256 << 10

    def __init__(self, source: Source, place: Place) -> None:
        assert place.deflated is not None
        self._source = source
        self._span = place.deflated
        self._size = place.size
        self._at = place.deflated.start
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._position = 0
        self._tail = b""

    def readinto(self, start: int, buffer: memoryview) -> int:
        """Bytes from ``start``, which is at most ``OVERLAP`` before where the last call ended."""
        while self._position < start and (skipped := self._next(min(start - self._position, self.PIECE))):
            self._keep(skipped)
        kept = self._tail[len(self._tail) - (self._position - start) :] if self._position > start else b""
        buffer[: len(kept)] = kept
        done = len(kept)
        while done < len(buffer) and self._position < self._size:
            piece = self._next(min(len(buffer) - done, self._size - self._position))
            if not piece:
                break
            buffer[done : done + len(piece)] = piece
            done += len(piece)
            self._keep(piece)
        return done

    def longer(self) -> bool:
        """Whether more bytes follow the declared size. Only asked at the end."""
        return self._position >= self._size and bool(self._next(1))

    def _keep(self, piece: bytes) -> None:
        self._position += len(piece)
        self._tail = (self._tail + piece[-OVERLAP:])[-OVERLAP:]

    def _next(self, most: int) -> bytes:
        """At most ``most`` more bytes; none at the end. Raises ``Unreadable`` where they are malformed."""
        while not self._inflater.eof:
            raw = self._inflater.unconsumed_tail or self._source.read(
                self._at, min(self.PIECE, self._span.stop - self._at)
            )
            if not self._inflater.unconsumed_tail:
                self._at += len(raw)
            try:
                out = self._inflater.decompress(raw, most)
            except zlib.error as error:
                raise Unreadable(self._source.name, f"deflated data is malformed: {error}") from error
            if out or not raw:
                return out
        return b""
