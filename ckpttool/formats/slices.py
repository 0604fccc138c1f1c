"""A range of a file read as a file of its own, and what was found there told in places of the whole file."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.model import Blob, Checkpoint, Node, Span
from ckpttool.source import Source

HELD = 1 << 16
"""Bytes up to which a slice is read at once: headers ask for many small ranges."""


class Slice:
    """Bytes ``start`` to ``stop`` of a source, as a source. It has the whole's name; closing it closes nothing."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self.name = source.name
        self.start = start
        self.size = max(0, min(stop, source.size) - start)
        self._source = source
        self._held = source.read(start, self.size) if self.size <= HELD else None

    def read(self, start: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` bytes from ``start``; fewer only at the end of the slice."""
        if self._held is not None:
            return self._held[start : start + max(nbytes, 0)]
        return self._source.read(self.start + start, max(0, min(nbytes, self.size - start)))

    def readinto(self, start: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``start``; the number of bytes read, short only at the end."""
        room = buffer[: max(0, self.size - start)]
        return self._source.readinto(self.start + start, room) if len(room) else 0

    def window(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes of a range as one indexable object."""
        stop = min(stop, self.size)
        if self._held is not None:
            return self._held[start:stop]
        return self._source.window(self.start + start, self.start + max(start, stop))

    def changed(self) -> bool:
        """False: the whole is asked once, not each of its slices."""
        return False

    def close(self) -> None:
        pass


def lifted(found: Checkpoint, start: int) -> Checkpoint:
    """What was read of a slice that begins at byte ``start``, with every span where it lies in the whole file."""
    if not start:
        return found
    nodes: tuple[Node, ...] = found.nodes
    if any(isinstance(node, Blob) for node in nodes):
        nodes = tuple(Blob(_moved(n.span, start)) if isinstance(n, Blob) else n for n in nodes)
    return replace(
        found,
        nodes=nodes,
        storages=tuple(s if s.span is None else replace(s, span=_moved(s.span, start)) for s in found.storages),
        extents=tuple(replace(extent, span=_moved(extent.span, start)) for extent in found.extents),
    )


def _moved(span: Span, by: int) -> Span:
    return Span(span.source, span.start + by, span.stop + by)
