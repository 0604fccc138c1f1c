"""Bytes that were put into a record: found by its checksum, wherever they stand.

Of a payload with n bytes put in at p, what stands before p is right as it is and what stands behind it is right n bytes
later. Both readings are compared: their checksums up to p differ by that of their exclusive or, carried on over the
bytes behind p. So one pass finds every p that the recorded checksum allows. With as many places as the record has
bytes, chance finds a wrong one with a probability of bytes / 2^32.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_salvage import crc_of
from ckpttool.measure.crc import combine
from ckpttool.model import Span
from ckpttool.source import Source

GRID = 512
"""Bytes of the smallest block that disks and file systems misplace; every place of the file on this grid is tried."""

CLOSELY = 4 << 20
"""Bytes of records in which every place is tried: some three microseconds each."""

BLOCK = 1 << 20


def without_inserted(
    source: Source, record: Record, torn: int, checksums: tuple[int, ...]
) -> tuple[tuple[Span, ...], int] | None:
    """The two spans that make the record, and its checksum; None where nothing fits. Reads the record twice."""
    if not record.usize or record.data + torn + record.usize > source.size:
        return None
    shifted = crc_of(source, record.data + torn, record.usize)
    wanted = {crc ^ shifted: crc for crc in checksums}
    for grid in (GRID, 1):
        if grid == 1 and record.usize > CLOSELY:
            return None
        for place, change in _changes(source, record, torn, grid):
            crc = wanted.get(combine(change, 0, record.usize - place))
            if crc is not None:
                return _spans(source.name, record, torn, place), crc
    return None


def _spans(name: str, record: Record, torn: int, place: int) -> tuple[Span, ...]:
    cut = record.data + place
    pair = Span(name, record.data, cut), Span(name, cut + torn, record.stop + torn)
    return tuple(span for span in pair if span.nbytes)


def _changes(source: Source, record: Record, torn: int, grid: int) -> Iterator[tuple[int, int]]:
    """Places in the record, with the checksum of what differs before them between the two readings."""
    yield 0, 0
    first = -record.data % grid or grid
    at, change = 0, 0
    while at < record.usize:
        stop = min(record.usize, at + BLOCK - (record.data + at) % BLOCK)
        one = source.read(record.data + at, stop - at)
        other = source.read(record.data + torn + at, stop - at)
        mixed = (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")
        if grid == 1:
            for index, byte in enumerate(mixed, at + 1):
                change = change >> 8 ^ TABLE[(change ^ byte) & 0xFF]
                yield index, change
        else:
            place = at
            while place < stop:
                onward = min(stop, place + (first if place == 0 else grid))
                change = _linear(mixed[place - at : onward - at], change)
                yield onward, change
                place = onward
        at = stop


def _linear(data: bytes, value: int) -> int:
    """The checksum without its initial and final values: linear in the data."""
    import zlib

    return zlib.crc32(data, value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        found.append(value)
    return tuple(found)


TABLE = _table()
