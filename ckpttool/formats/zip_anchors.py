"""The places by which a damaged archive finds itself again: headers, descriptors and directory entries, by signature.

A signature alone means nothing, since payloads hold any bytes: each is believed only with what has to follow it.
Reads in windows, so memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.formats.local_headers import parse_local
from ckpttool.formats.zip_archive import CENTRAL, CENTRAL_FIXED, DESCRIPTOR, LOCAL, Record, decode_name
from ckpttool.formats.zip_layout import GIB4
from ckpttool.frozen import dataclass
from ckpttool.source import Source

WINDOW = 4 << 20
"""Bytes that are searched at a time."""

LONGEST_NAME = 1024
SHORT, WIDE = 16, 24
"""Bytes of a descriptor with sizes of 32 and of 64 bits."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A data descriptor at ``at``: the checksum and the size of the payload that ends there."""

    at: int
    crc: int
    size: int
    stop: int


@dataclass(frozen=True, slots=True)
class Central:
    """A directory entry at ``at``."""

    at: int


Anchor = Record | Descriptor | Central
"""What holds a place: a local header (as a record), a descriptor, a directory entry."""


def local_at(source: Source, at: int, prefix: str | None) -> Record | None:
    """The local header at a place, if what stands there can be one; ``prefix`` is the top folder where it is known."""
    parsed = parse_local(source, at)
    if parsed is None:
        return None
    record, extra = parsed
    plausible = 0 < len(record.raw) <= LONGEST_NAME and record.method in (0, 8) and extra < 1 << 16
    return record if plausible and is_name(record.name, prefix) else None


def is_name(name: str, prefix: str | None) -> bool:
    """Whether a record may have this name: text, in the archive's folder."""
    if not name.isprintable() or any(0xDC80 <= ord(letter) <= 0xDCFF for letter in name):
        return False
    return name.startswith(prefix) if prefix else "/" in name


def descriptor_at(source: Source, at: int, size: int | None = None) -> Descriptor | None:
    """The descriptor at a place; ``size`` is what it has to state, else both sizes have to agree."""
    return _descriptor(source.read(at, WIDE), at, size)


def _descriptor(raw: bytes, at: int, size: int | None) -> Descriptor | None:
    if raw[:4] != DESCRIPTOR or len(raw) < SHORT:
        return None
    crc = int.from_bytes(raw[4:8], "little")
    short = int.from_bytes(raw[8:12], "little")
    wide = int.from_bytes(raw[8:16], "little") if len(raw) >= WIDE else -1
    if raw[8:16] == raw[16:24] and wide >= 0 and (wide >= GIB4 or at >= GIB4) and size in (None, wide):
        return Descriptor(at, crc, wide, at + WIDE)
    if raw[8:12] == raw[12:16] and size in (None, short):
        return Descriptor(at, crc, short, at + SHORT)
    return None


def central_at(source: Source, at: int, prefix: str | None) -> Central | None:
    """The directory entry at a place, if what stands there can be one."""
    raw = source.read(at, CENTRAL_FIXED.size + LONGEST_NAME)
    if raw[:4] != CENTRAL or len(raw) < CENTRAL_FIXED.size:
        return None
    length = int.from_bytes(raw[28:30], "little")
    name = decode_name(raw[CENTRAL_FIXED.size : CENTRAL_FIXED.size + length], 0)
    return Central(at) if 0 < length <= LONGEST_NAME and is_name(name, prefix) else None


def anchors(source: Source, start: int, prefix: str | None, stop: int | None = None) -> Iterator[Anchor]:
    """What holds a place from ``start`` on, in the order of the file. Costs one look at every byte."""
    for at in signatures(source, start, stop):
        found = local_at(source, at, prefix) or descriptor_at(source, at) or central_at(source, at, prefix)
        if found is not None and not (isinstance(found, Descriptor) and not 0 < found.size <= at):
            yield found


def signatures(source: Source, start: int, stop: int | None = None) -> Iterator[int]:
    """Where a signature of the three stands, in order."""
    end = source.size if stop is None else min(stop, source.size)
    known = (LOCAL, DESCRIPTOR, CENTRAL)
    while start < end:
        window = source.read(start, min(WINDOW, end - start + 3))
        at = -1
        while (at := window.find(b"PK", at + 1)) >= 0:
            if window[at : at + 4] in known and start + at < end:
                yield start + at
        if len(window) < WINDOW:
            return
        start += len(window) - 3


def named_headers(source: Source, start: int, stop: int, raw: bytes) -> Iterator[tuple[int, int]]:
    """Headers told by a record's name and the padding behind it alone: where each begins and its payload does."""
    window = source.read(start, min(stop - start, WINDOW) + len(raw))
    at = -1
    while (at := window.find(raw, at + 1)) >= 0:
        behind = at + len(raw)
        place = behind
        if window[place : place + 2] == b"\x01\x00":
            place += 4 + int.from_bytes(window[place + 2 : place + 4], "little")
        if window[place : place + 2] == b"FB" and at >= 30:
            length = int.from_bytes(window[place + 2 : place + 4], "little")
            yield start + at - 30, start + place + 4 + length
