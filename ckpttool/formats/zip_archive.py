"""The zip container, read the way a verifier must: every field, no trust, nothing stops at the first defect.

Python's ``zipfile`` is stricter than torch's reader in some places and laxer in others, so neither decides
here. Source: PKWARE APPNOTE 6.3; torch 2.13 ``caffe2/serialize/inline_container.cc`` for what torch writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Damage
from ckpttool.source import Source

LOCAL = b"PK\x03\x04"
CENTRAL = b"PK\x01\x02"
END = b"PK\x05\x06"
END64 = b"PK\x06\x06"
LOCATOR = b"PK\x06\x07"
DESCRIPTOR = b"PK\x07\x08"

LOCAL_FIXED = struct.Struct("<4s5H3I2H")
CENTRAL_FIXED = struct.Struct("<4s6H3I5H2I")
END_FIXED = struct.Struct("<4s4H2IH")
END64_FIXED = struct.Struct("<4sQ2H2I4Q")
LOCATOR_FIXED = struct.Struct("<4sIQI")

STORED, DEFLATED = 0, 8
HAS_DESCRIPTOR = 0x8
ENCRYPTED = 0x1 | 0x40 | 0x2000
PATCHED = 0x20
TAIL = 1 << 20
"""Bytes at the end of a file that are searched for the directory's end; a zip comment takes 64 KiB at most."""


class Record(NamedTuple):
    """One entry of an archive: a named tuple, since archives hold 100,000 of them.

    Offsets are absolute in the file; ``data`` is the first payload byte.

    ``central`` is the offset of its directory entry, -1 for a record found by walking. ``inert`` are the
    fields that no reader looks at: versions, time, date, attributes. ``crc`` 0 on content may mean "not recorded".
    """

    name: str
    raw: bytes
    header: int
    data: int
    csize: int
    usize: int
    crc: int
    method: int
    flags: int
    central: int = -1
    inert: tuple[int, ...] = ()

    @property
    def stop(self) -> int:
        """Just past the payload."""
        return self.data + self.csize

    def at(self, data: int) -> Record:
        """The record with its payload at ``data``; four times as fast as ``_replace``."""
        return tuple.__new__(Record, (*self[:3], data, *self[4:]))


@dataclass(frozen=True, slots=True)
class Directory:
    """A central directory and what stands after it. Offsets are absolute; ``shift`` was added to all of them.

    ``end`` is the offset of the end record, ``end64`` and ``locator`` those of their zip64 twins or None.
    ``origin`` is where the archive starts when bytes stand before it.
    """

    records: tuple[Record, ...]
    start: int
    stop: int
    end: int
    end64: int | None
    locator: int | None
    stop_of_file: int
    shift: int
    damage: tuple[Damage, ...]
    origin: int = 0


@dataclass(frozen=True, slots=True)
class _End:
    """The end records' claims."""

    offset: int
    count: int
    size: int
    start: int
    comment: int
    end64: int | None = None
    locator: int | None = None
    damage: tuple[Damage, ...] = ()


def looks_like_zip(source: Source) -> bool:
    """Whether the source starts with a local header or ends with a directory."""
    return source.read(0, 4) == LOCAL or _find_end(source) is not None


def is_exported(names: Iterable[str]) -> bool:
    """Whether records are named as ``torch.export.save`` names them (PT2 archives), not as ``torch.save`` does."""
    return any("/data/weights/" in name or name.endswith("/archive_format") for name in names)


def read_directory(source: Source, limits: Limits) -> Directory | None:
    """Read the central directory and each record's local header; None if the file has no directory.

    Cost: one read for the tail, one for the directory and a small one for each record.
    """
    end = _find_end(source)
    if end is None:
        return None
    start, damage = _place_directory(source, end)
    if start is None:
        return None
    stop = min(start + end.size, source.size)
    records, more = read_entries(source.window(start, stop), start, limits)
    damage += more
    if len(records) != end.count:
        damage.append(_claim(end.offset, "count", end.count, len(records)))
    shift = start - end.start
    claims = list(end.damage)
    leading = False
    if shift:
        leading = _starts_later(source, records, shift)
        damage.append(_shift_damage(source, shift, leading))
        # The locator's pointer is off by the same bytes, and that is no second defect.
        claims = [d for d in claims if d.facts.get("found") != int(str(d.facts.get("recorded", 0))) + shift]
        records = [r._replace(header=r.header + shift) for r in records] if leading else records
    tail = end.offset + END_FIXED.size + end.comment
    return Directory(
        tuple(records),
        start,
        stop,
        end.offset,
        end.end64,
        end.locator,
        tail,
        shift,
        (*claims, *damage),
        shift if leading else 0,
    )


# --- the end of the directory ----------------------------------------------------------------------------


def _find_end(source: Source) -> _End | None:
    """The last end record whose claims fit the file; zip64 values where they are recorded."""
    base = max(0, source.size - TAIL)
    tail = source.read(base, source.size - base)
    at = len(tail)
    while (at := tail.rfind(END, 0, at)) >= 0:
        if at + END_FIXED.size <= len(tail):
            found = _read_end(source, tail, at, base)
            if found.size <= found.offset and (found.count or found.size == 0):
                return found
    return None


def _read_end(source: Source, tail: bytes, at: int, base: int) -> _End:
    _, disk, cd_disk, here, count, size, start, comment = END_FIXED.unpack_from(tail, at)
    offset = base + at
    damage: list[Damage] = []
    left = source.size - offset - END_FIXED.size
    if comment > left:
        damage.append(_claim(offset, "comment length", comment, left))
        comment = 0
    if disk or cd_disk or (here != count):
        damage.append(Damage("directory-damaged", "end of directory", "claims to span several disks"))
    end = _End(offset, count, size, start, comment, damage=tuple(damage))
    return _with_zip64(source, end)


def _with_zip64(source: Source, end: _End) -> _End:
    locator = end.offset - LOCATOR_FIXED.size
    raw = source.read(locator, LOCATOR_FIXED.size) if locator >= 0 else b""
    if raw[:4] != LOCATOR:
        return _from_orphan_end64(source, end)
    _, disk, pointed, disks = LOCATOR_FIXED.unpack(raw)
    adjacent = locator - END64_FIXED.size
    damage = list(end.damage)
    if disk or disks > 1:
        damage.append(Damage("directory-damaged", "zip64 locator", "claims several disks", {"disks": disks}))
    for place in dict.fromkeys((adjacent, pointed)):
        record = source.read(place, END64_FIXED.size) if 0 <= place < end.offset else b""
        if len(record) == END64_FIXED.size and record[:4] == END64:
            if place != pointed:
                damage.append(_claim(locator, "zip64 end record", pointed, place))
            return _merge64(end, record, place, locator, damage)
    damage.append(
        Damage("directory-damaged", "zip64 locator", f"no zip64 end record at byte {pointed}, where it points")
    )
    return replace(end, locator=locator, damage=tuple(damage))


def _from_orphan_end64(source: Source, end: _End) -> _End:
    """A zip64 end record without its locator: torch always writes both."""
    place = end.offset - LOCATOR_FIXED.size - END64_FIXED.size
    record = source.read(place, END64_FIXED.size) if place >= 0 else b""
    if record[:4] != END64:
        return end
    message = "a zip64 end record has no locator"
    return replace(end, damage=(*end.damage, Damage("directory-damaged", "zip64 locator", message)))


def _merge64(end: _End, record: bytes, place: int, locator: int, damage: list[Damage]) -> _End:
    _, length, _, _, disk, cd_disk, here, count, size, start = END64_FIXED.unpack(record)
    if length != END64_FIXED.size - 12 or disk or cd_disk:
        damage.append(_claim(place, "zip64 record length", length, END64_FIXED.size - 12))
    if here != count:
        damage.append(_claim(place, "zip64 count on this disk", here, count))
    for what, small, big, full in (
        ("count", end.count, count, 0xFFFF),
        ("size", end.size, size, 0xFFFFFFFF),
        ("offset", end.start, start, 0xFFFFFFFF),
    ):
        if small != min(big, full):
            damage.append(_claim(end.offset, f"directory {what}", small, big))
    # The zip64 values decide where they are possible; the short ones are the second witness.
    sane = size <= end.offset and start <= end.offset
    count, size, start = (count, size, start) if sane else (end.count, end.size, end.start)
    return replace(end, count=count, size=size, start=start, end64=place, locator=locator, damage=tuple(damage))


def _claim(offset: int, what: str, said: int, have: int) -> Damage:
    return Damage(
        "directory-damaged",
        f"byte {offset}",
        f"the end of the directory says {what} {said}, and it is {have}",
        {"recorded": said, "found": have},
    )


def _place_directory(source: Source, end: _End) -> tuple[int | None, list[Damage]]:
    """Where the directory really starts: as recorded, or right before the end records."""
    below = end.end64 if end.end64 is not None else end.locator if end.locator is not None else end.offset
    adjacent = below - end.size
    for place in dict.fromkeys((adjacent, end.start)):
        if place >= 0 and source.read(place, 4) == CENTRAL:
            return place, []
    if end.count == 0:
        return adjacent, []
    # The signature of the first entry may be what is damaged: the second one tells.
    for place in dict.fromkeys((adjacent, end.start)):
        if 0 <= place < end.offset and CENTRAL in source.read(place, min(end.size, 1 << 16)):
            return place, []
    return None, []


def _starts_later(source: Source, records: list[Record], shift: int) -> bool:
    """Whether the whole archive stands ``shift`` bytes further in than it says."""
    first = min((r.header for r in records), default=0)
    return shift > 0 and source.read(first, 4) != LOCAL and source.read(first + shift, 4) == LOCAL


def _shift_damage(source: Source, shift: int, leading: bool) -> Damage:
    facts = {"bytes": abs(shift)}
    if leading:
        head = source.read(0, 16)
        return Damage(
            "leading-bytes", "byte 0", f"{shift} bytes stand before the archive, beginning {head[:8].hex(' ')}", facts
        )
    what = f"{shift} bytes were inserted" if shift > 0 else f"{-shift} bytes are missing"
    where = "later" if shift > 0 else "earlier"
    message = f"the directory stands {abs(shift)} bytes {where} than recorded: {what} before it"
    return Damage("truncated" if shift < 0 else "directory-damaged", "central directory", message, facts)


# --- the entries -----------------------------------------------------------------------------------------


def read_entries(data: bytes | memoryview, base: int, limits: Limits) -> tuple[list[Record], list[Damage]]:
    """The directory entries in ``data``, which lies at ``base``; what is none of them is reported and passed over."""
    records: list[Record] = []
    damage: list[Damage] = []
    at = 0
    while at + CENTRAL_FIXED.size <= len(data) and len(records) < limits.records:
        fields = CENTRAL_FIXED.unpack_from(data, at)
        if fields[0] != CENTRAL:
            damage.append(
                Damage("directory-damaged", f"byte {base + at}", f"directory entry {len(records)} has no signature")
            )
            after = bytes(data[at : at + (1 << 16)]).find(CENTRAL, 1)
            if after < 0:
                return records, damage
            at += after
            continue
        record, at = _read_entry(data, at, fields, base, damage)
        records.append(record)
    if at != len(data) and len(records) < limits.records:
        damage.append(
            Damage("directory-damaged", f"byte {base + at}", f"{len(data) - at} bytes of the directory are no entry")
        )
    if len(records) >= limits.records:
        damage.append(Damage("over-limit", "central directory", f"more than {limits.records} records"))
    return records, damage


def _read_entry(
    data: bytes | memoryview, at: int, fields: tuple[Any, ...], base: int, damage: list[Damage]
) -> tuple[Record, int]:
    (_, made, needed, flags, method, time, date, crc, csize, usize, names, extras, comments, disk, inner, outer,
     header) = fields  # fmt: skip
    name_at = at + CENTRAL_FIXED.size
    stop = name_at + names + extras + comments
    raw = bytes(data[name_at : name_at + names])
    if extras:
        extra = bytes(data[name_at + names : name_at + names + extras])
        usize, csize, header = _zip64_values(extra, usize, csize, header)
    if stop > len(data):
        damage.append(
            Damage("directory-damaged", f"byte {base + at}", "an entry reaches past the end of the directory")
        )
        stop = len(data)
    inert = (made, needed, time, date, disk, inner, outer, extras, comments)
    name = decode_name(raw, flags)
    # A named tuple's own constructor takes three times as long.
    record = (name, raw, header, -1, csize, usize, crc, method, flags, base + at, inert)
    return tuple.__new__(Record, record), stop


def _zip64_values(extra: bytes, usize: int, csize: int, header: int) -> tuple[int, int, int]:
    """The 64-bit values of extra field 1, in the order in which the short fields are saturated."""
    for ident, body in extra_fields(extra):
        if ident != 1:
            continue
        values = iter(struct.unpack_from(f"<{len(body) // 8}Q", body))
        usize = next(values, usize) if usize == 0xFFFFFFFF else usize
        csize = next(values, csize) if csize == 0xFFFFFFFF else csize
        header = next(values, header) if header == 0xFFFFFFFF else header
    return usize, csize, header


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The ``(id, body)`` pairs of an extra field, as far as it is well formed."""
    at = 0
    while at + 4 <= len(extra):
        ident, length = struct.unpack_from("<HH", extra, at)
        yield ident, extra[at + 4 : at + 4 + length]
        at += 4 + length


def decode_name(raw: bytes, flags: int) -> str:
    """A record's name: UTF-8, undecodable bytes kept as surrogates so that names stay distinct."""
    return raw.decode("utf-8", "surrogateescape")
