"""Following a damaged archive from record to record, and finding the way again where a step leads nowhere.

Each record is placed by its header, its size and its descriptor; two of the three are enough. Where bytes were put in
or taken away, or pages overwritten, the next header or descriptor holds the next place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field

from ckpttool.formats.zip_anchors import (
    SHORT,
    WIDE,
    Anchor,
    Central,
    Descriptor,
    anchors,
    central_at,
    descriptor_at,
    local_at,
)
from ckpttool.formats.zip_archive import HAS_DESCRIPTOR, LOCAL_FIXED, Record
from ckpttool.formats.zip_layout import GIB4, header_length
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.source import Source

SizesOf = Callable[[Record], "tuple[int, ...]"]
"""The sizes that a record may have, the likeliest first: as the tree says, as the directory says."""


@dataclass(slots=True)
class Placed:
    """A record in the file. ``name`` is empty where its header is lost; ``size`` -1 where nothing says it.

    ``crcs`` are the checksums recorded for it, that of its descriptor first. ``torn`` counts the bytes that were put
    in (or, below 0, taken away) between its beginning and its descriptor. ``stop`` is just past its descriptor.
    """

    name: str
    data: int
    size: int
    header: int = -1
    crcs: list[int] = field(default_factory=list)
    ended: bool = False
    torn: int = 0
    stop: int = 0
    method: int = 0
    csize: int = -1

    @property
    def kept(self) -> int:
        """Bytes of the payload in the file."""
        return self.csize if self.csize >= 0 else self.size


@dataclass(frozen=True, slots=True)
class Places:
    """The records found, in the order of the file, and where the directory begins, -1 where none was met."""

    placed: tuple[Placed, ...]
    directory: int


def place(source: Source, sizes_of: SizesOf, prefix: str | None, limits: Limits) -> Places:
    """Place every record that a header or a descriptor tells of. Linear in the bytes where framing is damaged."""
    found: list[Placed] = []
    at = 0
    while at < source.size and len(found) < limits.records:
        header = local_at(source, at, prefix)
        if header is None:
            anchor = central_at(source, at, prefix) or next(anchors(source, at, prefix), None)
            if anchor is None or isinstance(anchor, Central):
                return Places(tuple(found), -1 if anchor is None else anchor.at)
            if isinstance(anchor, Record):
                at = anchor.header
                continue
            found.append(_anonymous(anchor, at))
            at = anchor.stop
            continue
        one = _follow(source, header, sizes_of(header), prefix)
        found.append(one)
        if one.size < 0:
            at = one.data
            continue
        at = max(one.stop, header.header + 30)
    return Places(tuple(found), -1)


def _anonymous(end: Descriptor, floor: int) -> Placed:
    """A record of which the descriptor alone is left; it begins behind the record before it."""
    data = end.at - end.size
    torn = 0 if data >= floor else data - floor
    return Placed("", max(data, floor), end.size, -1, [end.crc], True, torn, end.stop)


def _follow(source: Source, header: Record, sizes: tuple[int, ...], prefix: str | None) -> Placed:
    """A record from its header on."""
    one = Placed(header.name, header.data, -1, header.header, method=header.method)
    stated = header.csize and not header.flags & HAS_DESCRIPTOR
    if stated and (not sizes or header.csize in sizes or _is_framing(source, header.stop, prefix)):
        one.size, one.csize, one.crcs = header.usize, header.csize, [header.crc]
        one.stop, one.ended = header.stop, True
        return one
    starts = _starts(source, header)
    for fits in (_is_stated, _is_followed):
        for one.data in starts:
            if any(fits(source, one, size, prefix) for size in sizes):
                return one
    one.data = header.data
    _search(source, one, sizes, prefix)
    return one


def _starts(source: Source, header: Record) -> tuple[int, ...]:
    """Where the payload may begin: as the header says, as its padding says, as torch aligns it."""
    extra = header.header + LOCAL_FIXED.size + len(header.raw)
    found = source.read(extra, 4)
    padded = extra + 4 + int.from_bytes(found[2:4], "little") if found[:2] == b"FB" else header.data
    aligned = header.header + header_length(header._replace(csize=0, usize=0), 64)
    return tuple(dict.fromkeys((header.data, padded, aligned)))


def _is_stated(source: Source, one: Placed, size: int, prefix: str | None) -> bool:
    """Whether a record of this size ends with its descriptor."""
    end = one.data + size
    if not size:
        one.size, one.stop, one.ended = 0, end, True
        return end == source.size or _is_framing(source, end, prefix)
    stated = descriptor_at(source, end, size)
    if stated is not None:
        one.size, one.crcs, one.ended, one.stop = size, [stated.crc], True, stated.stop
    return stated is not None


def _is_followed(source: Source, one: Placed, size: int, prefix: str | None) -> bool:
    """Whether the next header, or the directory, stands where it should behind a record of this size."""
    big = max(one.header, size) >= GIB4
    after = one.data + size + (WIDE if big else SHORT)
    if not _is_framing(source, after, prefix):
        return False
    one.size, one.stop = size, after
    return True


def _is_framing(source: Source, at: int, prefix: str | None) -> bool:
    return local_at(source, at, prefix) is not None or central_at(source, at, prefix) is not None


def _search(source: Source, one: Placed, sizes: tuple[int, ...], prefix: str | None) -> None:
    """The end of a record that is not where it should be: by whatever holds a place behind its beginning."""
    likely = sizes[0] if sizes else -1
    for anchor in anchors(source, one.data, prefix):
        if isinstance(anchor, Descriptor) and anchor.at - anchor.size == one.data:
            one.size, one.crcs, one.ended, one.stop = anchor.size, [anchor.crc], True, anchor.stop
            return
        if isinstance(anchor, Descriptor) and anchor.size in sizes:
            one.size, one.crcs, one.ended, one.stop = anchor.size, [anchor.crc], True, anchor.stop
            one.torn = anchor.at - anchor.size - one.data
            return
        one.size, one.stop = likely, _floor(anchor, one.data, likely)
        if isinstance(anchor, (Record, Central)) and likely >= 0:
            start = anchor.header if isinstance(anchor, Record) else anchor.at
            one.torn = start - (one.data + likely + (WIDE if one.header >= GIB4 or likely >= GIB4 else SHORT))
        return
    one.size = likely
    one.stop = source.size if likely < 0 else min(source.size, one.data + likely)


def _floor(anchor: Anchor, data: int, likely: int) -> int:
    """Where to go on after a record whose own end is lost, when this is what comes next."""
    if isinstance(anchor, Record):
        return anchor.header
    if isinstance(anchor, Central):
        return anchor.at
    return max(data, min(data + max(likely, 0), anchor.at - anchor.size))


def gaps(placed: tuple[Placed, ...], size: int) -> Iterator[tuple[int, int]]:
    """What no record owns, in order."""
    at = 0
    for one in sorted(placed, key=lambda one: one.header if one.header >= 0 else one.data):
        start = one.header if one.header >= 0 else one.data
        if start > at:
            yield at, start
        at = max(at, one.stop)
    if at < size:
        yield at, size
