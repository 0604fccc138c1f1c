"""Reading an archive without its directory: from local header to local header, each proved by its descriptor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckpttool.errors import printable
from ckpttool.formats.local_headers import parse_local
from ckpttool.formats.zip_archive import CENTRAL, DESCRIPTOR, HAS_DESCRIPTOR, LOCAL, Record
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.source import Source

SEARCH = 1 << 20
"""Bytes that are searched for the next header where one is not where it should be."""

SizeOf = Callable[[Record], int | None]
"""What the tree says about a record's size, for headers that leave it to the descriptor."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The records found, where the walk ended and why. ``partial`` is the record in which the file ends."""

    records: tuple[Record, ...]
    stop: int
    why: str
    partial: Record | None = None
    missing: int = 0


def walk_records(source: Source, size_of: SizeOf, limits: Limits) -> Walk:
    """Follow local headers from the start of the file. Records whose descriptor is whole carry its CRC."""
    records: list[Record] = []
    at = 0
    for _ in range(limits.records):
        parsed = parse_local(source, at)
        if parsed is None:
            onward = _next_header(source, at)
            if onward is None:
                return Walk(tuple(records), at, _ending(source, at))
            at = onward
            continue
        record = _sized(source, parsed[0], size_of)
        if record is None:
            message = f"the size of {printable(parsed[0].name)} is not known"
            return Walk(tuple(records), parsed[0].data, message, parsed[0])
        if record.stop > source.size:
            missing = record.stop - source.size
            return Walk(tuple(records), source.size, f"the file ends inside {printable(record.name)}", record, missing)
        record, at = _with_descriptor(source, record)
        records.append(record)
    return Walk(tuple(records), at, f"more than {limits.records} records")


def _next_header(source: Source, at: int) -> int | None:
    """The next local header within reach, unless the directory or the end of the file comes first."""
    window = source.read(at, SEARCH)
    if window[:4] == CENTRAL:
        return None
    found = window.find(LOCAL, 1)
    return None if found < 0 else at + found


def _ending(source: Source, at: int) -> str:
    if at >= source.size:
        return "the file ends before the directory"
    if source.read(at, 4) == CENTRAL:
        return "the file ends inside the directory"
    return f"no header at byte {at}"


def _sized(source: Source, record: Record, size_of: SizeOf) -> Record | None:
    if not record.flags & HAS_DESCRIPTOR or record.csize:
        return record
    known = size_of(record)
    if known is not None:
        return record._replace(csize=known, usize=known)
    for size in _descriptor_distances(source, record.data):
        return record._replace(csize=size, usize=size)
    return None


def _descriptor_distances(source: Source, data: int) -> Iterator[int]:
    """Payload sizes for which a descriptor that states the same size follows."""
    window = source.read(data, 1 << 16)
    at = -1
    while (at := window.find(DESCRIPTOR, at + 1)) >= 0:
        if int.from_bytes(window[at + 8 : at + 12], "little") == at:
            yield at


def _with_descriptor(source: Source, record: Record) -> tuple[Record, int]:
    """The record with its descriptor's CRC, and where the next header should be."""
    if not record.flags & HAS_DESCRIPTOR:
        return record, record.stop
    raw = source.read(record.stop, 24)
    if raw[:4] != DESCRIPTOR:
        return record, record.stop
    wide = int.from_bytes(raw[8:16], "little") == record.csize and record.csize != 0 and raw[16:24] == raw[8:16]
    return record._replace(crc=int.from_bytes(raw[4:8], "little")), record.stop + (24 if wide else 16)
