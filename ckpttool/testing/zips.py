"""Archives exactly as ``torch.save`` lays them out, and where each of their header fields lies.

Sources: torch 2.13 ``caffe2/serialize/inline_container.cc`` and PKWARE's APPNOTE 6.3.10. Files below
4 GiB only: what is built here is small.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

ALIGNMENT = 64
STREAMED = 0x0808  # bit 3: sizes follow the data; bit 11: the name is UTF-8
EMPTY = 0x0800  # a record without bytes has no data descriptor
SERIALIZATION_ID = ".data/serialization_id"

LOCAL = {
    "signature": (0, 4),
    "flags": (6, 2),
    "method": (8, 2),
    "crc": (14, 4),
    "compressed-size": (18, 4),
    "size": (22, 4),
    "name-length": (26, 2),
    "extra-length": (28, 2),
}
CENTRAL = {
    "signature": (0, 4),
    "flags": (8, 2),
    "method": (10, 2),
    "crc": (16, 4),
    "compressed-size": (20, 4),
    "size": (24, 4),
    "name-length": (28, 2),
    "extra-length": (30, 2),
    "offset": (42, 4),
}
DESCRIPTOR = {"signature": (0, 4), "crc": (4, 4), "compressed-size": (8, 4), "size": (12, 4)}
END64 = {
    "signature": (0, 4),
    "count-here": (24, 8),
    "count": (32, 8),
    "directory-size": (40, 8),
    "directory-offset": (48, 8),
}
LOCATOR = {"signature": (0, 4), "offset": (8, 8), "disks": (16, 4)}
END = {
    "signature": (0, 4),
    "count-here": (8, 2),
    "count": (10, 2),
    "directory-size": (12, 4),
    "directory-offset": (16, 4),
    "comment-length": (20, 2),
}
"""Field name -> (offset in its structure, width in bytes), for each structure of an archive."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an archive. The defaults are what torch writes; the rest is there to deviate.

    ``name`` includes the folder (``archive/data.pkl``). ``local_name`` is what the local header says,
    where it differs. ``deflated`` compresses; ``listed``: the central directory knows of the record.
    """

    name: str
    data: bytes
    local_name: str | None = None
    deflated: bool = False
    listed: bool = True


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a record lies: byte offsets of its local header, data, end of data and directory entry."""

    name: str
    header: int
    start: int
    stop: int
    entry: int


def torch_zip(
    records: Sequence[Record], *, alignment: int = ALIGNMENT, checksums: bool = True, name_hash: str | None = None
) -> bytes:
    """The archive that torch 2.13 writes for these records, ending with a serialization id.

    ``checksums=False`` is ``set_crc32_options(False)``; ``alignment=1`` pads nothing. ``name_hash`` is the
    first half of the id: 20 digits that depend on torch's C++ library; the default only stands for them.
    """
    records = [r for r in records if not r.name.endswith(SERIALIZATION_ID)]
    identity = serialization_id(records, checksums, name_hash)
    folder = records[0].name.split("/")[0] if records else "archive"
    complete = [*records, Record(f"{folder}/{SERIALIZATION_ID}", identity)]
    return archive(complete, alignment=alignment, checksums=checksums)


def archive(records: Iterable[Record], *, alignment: int = ALIGNMENT, checksums: bool = True) -> bytes:
    """The same layout for just these records: no id is added."""
    body, directory, count = io.BytesIO(), io.BytesIO(), 0
    for record in records:
        entry = _write_record(body, record, alignment, checksums)
        if record.listed:
            directory.write(entry)
            count += 1
    start = body.tell()
    body.write(directory.getvalue())
    body.write(_end(start, len(directory.getvalue()), count))
    return body.getvalue()


def serialization_id(records: Iterable[Record], checksums: bool = True, name_hash: str | None = None) -> bytes:
    """The 40 digits that torch writes last: a hash of the names, then the chained CRCs of all records."""
    seed = 0
    names = zlib.crc32(b"")
    for record in records:
        names = zlib.crc32(record.name.encode(), names)
        if record.data:
            crc = zlib.crc32(record.data) if checksums else 0
            seed ^= (crc + 0x9E3779B9 + (seed << 6) + (seed >> 2)) & 0xFFFFFFFFFFFFFFFF
    return f"{name_hash or f'{names:020d}'}{seed:020d}".encode()


def read_records(data: bytes) -> list[Record]:
    """The records of a sound archive, inflated where they are compressed. Checksums are not looked at."""
    found = []
    for place in placed(data):
        content = data[place.start : place.stop]
        deflated = struct.unpack_from("<H", data, place.entry + 10)[0] == 8
        found.append(Record(place.name, zlib.decompress(content, -15) if deflated else content))
    return found


def replaced(records: Iterable[Record], tail: str, data: bytes) -> list[Record]:
    """The same records with new content for the one whose name, without its folder, is ``tail``."""
    return [replace(r, data=data) if tail_of(r.name) == tail else r for r in records]


def tail_of(name: str) -> str:
    """A record's name without its top folder."""
    return name.partition("/")[2]


def placed(data: bytes) -> list[Placed]:
    """Where the records of a sound archive lie, in the order of the directory."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        infos, entry = opened.infolist(), opened.start_dir
    found = []
    for info in infos:
        name_length, extra_length = struct.unpack_from("<HH", data, info.header_offset + 26)
        start = info.header_offset + 30 + name_length + extra_length
        found.append(Placed(info.filename, info.header_offset, start, start + info.compress_size, entry))
        name_length, extra_length, comment_length = struct.unpack_from("<HHH", data, entry + 28)
        entry += 46 + name_length + extra_length + comment_length
    return found


def end_structures(data: bytes) -> tuple[int, int, int]:
    """Offsets of the zip64 end record, its locator and the end record."""
    end = data.rfind(b"PK\5\6")
    locator = end - 20
    if end < 0 or data[locator : locator + 4] != b"PK\6\7":
        raise ValueError("no zip64 end record: not an archive that torch wrote")
    return struct.unpack_from("<Q", data, locator + 8)[0], locator, end


def _write_record(body: io.BytesIO, record: Record, alignment: int, checksums: bool) -> bytes:
    offset = body.tell()
    name = (record.name if record.local_name is None else record.local_name).encode()
    content = _deflate(record.data) if record.deflated else record.data
    crc = zlib.crc32(record.data) if checksums else 0
    flags, method = (STREAMED if record.data else EMPTY), (8 if record.deflated else 0)
    padding = b"Z" * (-(offset + 30 + len(name) + 4) % alignment)
    extra = b"FB" + struct.pack("<H", len(padding)) + padding
    needs = 20 if record.deflated else 0
    body.write(struct.pack("<4s5H3I2H", b"PK\3\4", needs, flags, method, 0, 0, 0, 0, 0, len(name), len(extra)))
    body.write(name + extra + content)
    if record.data:
        body.write(struct.pack("<4s3I", b"PK\7\x08", crc, len(content), len(record.data)))
    listed = record.name.encode()
    sizes = (crc, len(content), len(record.data), len(listed), 0, 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, needs, flags, method, 0, 0, *sizes) + listed


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _end(start: int, size: int, count: int) -> bytes:
    after = start + size
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0x031E, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, after, 1)
    return end64 + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, start, 0)
