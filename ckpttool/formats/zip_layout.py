"""What torch's zip writer would have written: headers derived from names, sizes and checksums.

The writer is deterministic, so every header byte can be checked, not only those that a reader looks at.
Source: torch 2.13 ``PyTorchStreamWriter`` and its patched miniz; unchanged in shape since torch 1.6.
"""

from __future__ import annotations

from ckpttool.formats.zip_archive import (
    CENTRAL,
    CENTRAL_FIXED,
    DESCRIPTOR,
    END,
    END64,
    END64_FIXED,
    END_FIXED,
    LOCAL,
    LOCAL_FIXED,
    LOCATOR,
    LOCATOR_FIXED,
    Record,
)
from ckpttool.frozen import dataclass

GIB4 = 0xFFFFFFFF
UTF8 = 0x800
WITH_DESCRIPTOR = 0x808


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that should stand at ``start``: of which structure, and for which record."""

    start: int
    data: bytes
    what: str
    record: str = ""


def local_header(record: Record, alignment: int, origin: int = 0) -> bytes:
    """The local header of a record, its payload at a multiple of ``alignment`` from the archive's ``origin``."""
    zip64 = zip64_extra(record, record.header - origin, local=True)
    plain = LOCAL_FIXED.size + len(record.raw) + len(zip64) + 4
    padding = header_length(record, alignment, origin) - plain
    extra = zip64 + b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    flags = WITH_DESCRIPTOR if record.usize else UTF8
    version = 20 if record.method else 0
    fixed_part = LOCAL_FIXED.pack(LOCAL, version, flags, record.method, 0, 0, 0, 0, 0, len(record.raw), len(extra))
    return fixed_part + record.raw + extra


def header_length(record: Record, alignment: int, origin: int = 0) -> int:
    """Bytes of a record's local header, padding included."""
    start = record.header - origin
    plain = LOCAL_FIXED.size + len(record.raw) + 4
    if start >= GIB4 or record.usize >= GIB4 or record.csize >= GIB4:
        plain += len(zip64_extra(record, start, local=True))
    return plain + (-(start + plain) % alignment if alignment else 0)


def descriptor_length(record: Record, origin: int = 0) -> int:
    """Bytes of a record's data descriptor."""
    usize = record.usize
    if not usize:
        return 0
    return 24 if usize >= GIB4 or record.csize >= GIB4 or record.header - origin >= GIB4 else 16


def zip64_extra(record: Record, start: int, *, local: bool) -> bytes:
    """Extra field 1, where a size or an offset needs 64 bits; in local headers the compressed size is 0."""
    body = b""
    if max(record.usize, record.csize) >= GIB4:
        body += record.usize.to_bytes(8, "little") + (0 if local else record.csize).to_bytes(8, "little")
    if start >= GIB4:
        body += start.to_bytes(8, "little")
    return b"\x01\x00" + len(body).to_bytes(2, "little") + body if body else b""


def descriptor(record: Record, origin: int = 0) -> bytes:
    """The data descriptor after a payload; empty records have none, big ones 64-bit sizes."""
    if not record.usize:
        return b""
    width = (descriptor_length(record, origin) - 8) // 2
    sizes = record.csize.to_bytes(width, "little") + record.usize.to_bytes(width, "little")
    return DESCRIPTOR + record.crc.to_bytes(4, "little") + sizes


def central_entry(record: Record) -> bytes:
    """The directory entry of a record."""
    extra = zip64_extra(record, record.header, local=False)
    flags = WITH_DESCRIPTOR if record.usize else UTF8
    version = 20 if record.method else 0
    crc = record.crc if record.usize else 0  # that of no bytes, which no pass over payloads looks at
    fixed = CENTRAL_FIXED.pack(
        CENTRAL, 0, version, flags, record.method, 0, 0, crc, min(record.csize, GIB4),
        min(record.usize, GIB4), len(record.raw), len(extra), 0, 0, 0, 0, min(record.header, GIB4),
    )  # fmt: skip
    return fixed + record.raw + extra


def end_records(count: int, size: int, start: int) -> bytes:
    """The zip64 end record, its locator and the short end record, which torch always writes together."""
    at = start + size
    # "Made by" 3.0 on Unix, needs 4.5: constants of miniz.
    end64 = END64_FIXED.pack(END64, END64_FIXED.size - 12, 0x031E, 45, 0, 0, count, count, size, start)
    locator = LOCATOR_FIXED.pack(LOCATOR, 0, at, 1)
    short = min(count, 0xFFFF)
    end = END_FIXED.pack(END, 0, 0, short, short, min(size, GIB4), min(start, GIB4), 0)
    return end64 + locator + end


LOCAL_FIELDS = (
    (0, 4, "signature"), (4, 6, "version"), (6, 8, "flags"), (8, 10, "method"), (10, 14, "time"),
    (14, 18, "crc"), (18, 26, "sizes"), (26, 28, "name length"), (28, 30, "extra length"),
)  # fmt: skip

INERT = frozenset({"version", "time", "padding"})
"""Fields that no known reader acts on: a difference there is no damage to the content."""


def field_at(index: int, name_length: int) -> str:
    """Which field of a local header byte ``index`` belongs to."""
    for start, stop, what in LOCAL_FIELDS:
        if start <= index < stop:
            return what
    return "name" if index < LOCAL_FIXED.size + name_length else "padding"


def chain(crcs: list[int]) -> int:
    """The ordered checksum of checksums in ``.data/serialization_id``: every CRC, in writing order."""
    seed = 0
    mask = (1 << 64) - 1
    for crc in crcs:
        seed ^= (crc + 0x9E3779B9 + ((seed << 6) & mask) + (seed >> 2)) & mask
    return seed
