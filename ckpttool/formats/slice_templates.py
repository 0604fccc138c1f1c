"""Archives of one tensor that differ in its content alone: the second of a form is told from the first, not parsed.

A sharded checkpoint holds tens of thousands of them. What torch writes around a tensor's bytes depends on its type,
shape and strides, save for two checksums, each in two places, and the serialization id. Where everything else is the
same byte for byte, so is everything else that a reader would find.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from ckpttool.frozen import dataclass
from ckpttool.model import Blob, Checkpoint, Checksum, Extent, Span
from ckpttool.source import Source

MOST = 16
"""Forms of one size that are kept."""

LARGEST = 1 << 16
"""Bytes around a content beyond which an archive is no usual one."""

_ENTRY = struct.Struct("<4s12xIII3H")
"""A directory's entry: signature, CRC-32, two sizes, and the lengths of name, extra field and comment."""

_ENTRY_BYTES = 46
_CRC_AT = 16
_DESCRIPTOR = b"PK\x07\x08"


@dataclass(frozen=True, slots=True)
class _Template:
    """One archive: what it was read as, the bytes around its content, and where in those behind it things vary."""

    found: Checkpoint
    start: int
    stop: int
    head: bytes
    tail: bytes
    holes: tuple[tuple[int, int], ...]
    own: tuple[int, int]
    ids: tuple[int, int]


class Templates:
    """The forms met so far. ``read`` gives what a full reading would, or None where none fits."""

    def __init__(self) -> None:
        self._known: dict[int, list[_Template]] = {}

    def read(self, source: Source, start: int, nbytes: int) -> Checkpoint | None:
        """The archive at a range of the source, told from its form; costs two small reads."""
        for one in self._known.get(nbytes, ()):
            if source.read(start, len(one.head)) == one.head:
                tail = source.read(start + one.stop, len(one.tail))
                if _masked(tail, one.holes) == one.tail:
                    return _told(one, tail, source.name, start)
        return None

    def learn(self, source: Source, start: int, nbytes: int, found: Checkpoint) -> None:
        """Keep the form of an archive that was read, where it is a usual one; ``found`` has places of its own."""
        known = self._known.setdefault(nbytes, [])
        made = _template(source, start, nbytes, found) if len(known) < MOST else None
        if made is not None:
            known.append(made)


def _template(source: Source, start: int, nbytes: int, found: Checkpoint) -> _Template | None:
    plain = found.format == "torch-zip" and not found.kind and not found.damage and found.root is not None
    if not plain or len(found.storages) != 1 or any(isinstance(node, Blob) for node in found.nodes):
        return None
    storage = found.storages[0]
    ids = [extent for extent in found.extents if extent.name.endswith("/.data/serialization_id")]
    own = [extent for extent in found.extents if extent.span == storage.span]
    if storage.span is None or storage.checksum is None or len(ids) != 1 or len(own) != 1:
        return None
    first, last = storage.span.start, storage.span.stop
    if first > LARGEST or nbytes - last > LARGEST or ids[0].span.start < last:
        return None
    tail = source.read(start + last, nbytes - last)
    entries = _entries(tail, [own[0].name, ids[0].name])
    written = ids[0].span.start - last, ids[0].span.stop - last
    if entries is None or tail[:4] != _DESCRIPTOR or tail[written[1] : written[1] + 4] != _DESCRIPTOR:
        return None
    mine, theirs = (4, entries[0]), (written[1] + 4, entries[1])
    holes = (*((at, at + 4) for at in (*mine, *theirs)), written)
    head = source.read(start, first)
    return _Template(found, first, last, head, _masked(tail, holes), holes, mine, theirs)


def _entries(tail: bytes, names: list[str]) -> list[int] | None:
    """Where the directory has the checksums of the records with these names; None unless each is there once."""
    found: dict[str, int] = {}
    at = tail.find(b"PK\x01\x02")
    while 0 <= at <= len(tail) - _ENTRY_BYTES and tail[at : at + 4] == b"PK\x01\x02":
        _, _, _, _, name, extra, comment = _ENTRY.unpack_from(tail, at)
        text = tail[at + _ENTRY_BYTES : at + _ENTRY_BYTES + name].decode("utf-8", "replace")
        if text in found:
            return None
        found[text] = at + _CRC_AT
        at += _ENTRY_BYTES + name + extra + comment
    return [found[name] for name in names] if all(name in found for name in names) else None


def _masked(tail: bytes, holes: tuple[tuple[int, int], ...]) -> bytes:
    """The bytes with zeros where they may vary."""
    made = bytearray(tail)
    for start, stop in holes:
        made[start:stop] = bytes(max(0, min(stop, len(made)) - start))
    return bytes(made)


def _told(one: _Template, tail: bytes, name: str, start: int) -> Checkpoint | None:
    """What the archive is read as; None where its two copies of a checksum differ, or none is recorded."""
    crc, ids = ({int.from_bytes(tail[at : at + 4], "little") for at in places} for places in (one.own, one.ids))
    if len(crc) != 1 or len(ids) != 1 or 0 in crc | ids:
        return None
    fresh = Checksum("crc32", crc.pop())
    storage = one.found.storages[0]
    extents = tuple(
        Extent(
            extent.name,
            Span(name, start + extent.span.start, start + extent.span.stop),
            fresh
            if extent.span == storage.span
            else Checksum("crc32", next(iter(ids)))
            if extent.name.endswith("/.data/serialization_id")
            else extent.checksum,
            extent.method,
            extent.size,
        )
        for extent in one.found.extents
    )
    span = Span(name, start + one.start, start + one.stop)
    storages = (replace(storage, span=span, checksum=fresh),)
    return replace(one.found, source=name, storages=storages, extents=extents, files=(name,))
