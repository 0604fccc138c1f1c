"""Local headers: where each record's payload begins, and whether the header agrees with the directory."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.formats.zip_archive import (
    ENCRYPTED,
    HAS_DESCRIPTOR,
    LOCAL,
    LOCAL_FIXED,
    PATCHED,
    Record,
    decode_name,
    extra_fields,
)
from ckpttool.formats.zip_layout import (
    GIB4,
    INERT,
    UTF8,
    WITH_DESCRIPTOR,
    descriptor,
    descriptor_length,
    field_at,
    header_length,
    local_header,
)
from ckpttool.model import Damage
from ckpttool.source import Source

READ_AHEAD = 192
"""Bytes of a local header beyond its name that one read takes: fixed part, zip64 and padding up to 128."""


def locate(
    source: Source,
    records: tuple[Record, ...],
    torch_writer: bool,
    alignment: int,
    origin: int = 0,
    following: int | None = None,
) -> tuple[list[Record], list[Damage]]:
    """Find each payload's first byte; damage where the local header disagrees with the directory.

    For torch's own archives the expected header is derived and compared as a whole, which is both the
    strictest check and the cheapest. ``origin`` is where the archive starts. Cost: one small read a record;
    none where ``following``, the byte at which the directory begins, is given and the derived layout leads from
    record to record right there.
    """
    derived = None if following is None or not torch_writer else _derived(records, alignment, origin, following)
    if derived is not None:
        return derived, []
    located: list[Record] = []
    damage: list[Damage] = []
    for record in records:
        actual = source.read(record.header, READ_AHEAD + alignment + len(record.raw))
        if not torch_writer:
            damage.extend(_disagreements(record, actual))
            located.append(record.at(_stated_start(record, actual)))
            continue
        expected = local_header(record, alignment, origin)
        if actual.startswith(expected):
            located.append(record.at(record.header + len(expected)))
            continue
        start = _likely_start(source, record, actual, len(expected), origin)
        damage.extend(_differences(record, expected, actual, start))
        located.append(record.at(start))
    return located, damage


def _derived(records: tuple[Record, ...], alignment: int, origin: int, following: int) -> list[Record] | None:
    """The records as torch's layout places them; None if any of them does not end where the next begins."""
    located: list[Record] = []
    at = origin
    for record in records:
        if record.header != at or record.method:
            return None
        start = at + header_length(record, alignment, origin)
        located.append(record.at(start))
        at = start + record.csize + descriptor_length(record, origin)
    return located if at == following else None


def is_torch_writer(records: tuple[Record, ...]) -> bool:
    """Whether flags and versions in the directory are those of torch's writer, in all but a few damaged entries."""
    if not records:
        return False
    typical = sum(r.flags in (WITH_DESCRIPTOR, UTF8) and r.inert[0] == 0 and not any(r.inert[2:4]) for r in records)
    return typical * 4 >= len(records) * 3


def parse_local(source: Source, start: int) -> tuple[Record, int] | None:
    """The local header at ``start`` as a record (sizes and CRC as it states them) and its extra field's length."""
    fixed = source.read(start, LOCAL_FIXED.size)
    if len(fixed) < LOCAL_FIXED.size or fixed[:4] != LOCAL:
        return None
    _, _, flags, method, _, _, crc, csize, usize, names, extras = LOCAL_FIXED.unpack(fixed)
    raw = source.read(start + LOCAL_FIXED.size, names)
    data = start + LOCAL_FIXED.size + names + extras
    if usize == 0xFFFFFFFF or csize == 0xFFFFFFFF:
        usize, csize = _local_zip64(source.read(start + LOCAL_FIXED.size + names, extras), usize, csize)
    return Record(decode_name(raw, flags), raw, start, data, csize, usize, crc, method, flags), extras


def _local_zip64(extra: bytes, usize: int, csize: int) -> tuple[int, int]:
    for ident, body in extra_fields(extra):
        if ident == 1 and len(body) >= 16:
            return struct.unpack_from("<QQ", body)
    return usize, csize


def _stated_start(record: Record, actual: bytes) -> int:
    """Where the local header's own lengths put the payload, as loaders read them."""
    if len(actual) < LOCAL_FIXED.size or actual[:4] != LOCAL:
        return record.header + LOCAL_FIXED.size + len(record.raw)
    names, extras = struct.unpack_from("<HH", actual, 26)
    return record.header + LOCAL_FIXED.size + int(names) + int(extras)


def _likely_start(source: Source, record: Record, actual: bytes, expected: int, origin: int) -> int:
    """Where the header's lengths or torch's layout put the payload: the one that its descriptor confirms."""
    trailer = descriptor(record, origin)[:4]
    stated = _stated_start(record, actual)
    for start in (stated, record.header + expected):
        if trailer and source.read(start + record.csize, 4) == trailer:
            return start
    return stated if not trailer and actual[:4] == LOCAL else record.header + expected


def _differences(record: Record, expected: bytes, actual: bytes, start: int) -> Iterator[Damage]:
    where = printable(record.name)
    if len(actual) < LOCAL_FIXED.size or actual[:4] != LOCAL:
        found = actual[:4].hex(" ") or "nothing"
        message = f"no local header at byte {record.header}: found {found}"
        yield Damage("header-mismatch", where, message, {"offset": record.header})
        return
    fields: dict[str, int] = {}
    for index, (want, have) in enumerate(zip(expected, actual, strict=False)):
        if want != have:
            fields.setdefault(field_at(index, len(record.raw)), record.header + index)
    if len(actual) < len(expected):
        fields.setdefault("padding", record.header + len(actual))
    material = [name for name in fields if name not in INERT]
    # Another amount of padding is no damage where everything else says so too: another alignment.
    padded = set(material) <= {"extra length"} and start == _stated_start(record, actual)
    rule = "not-canonical" if padded else "header-mismatch"
    first = min(fields.values())
    names = ", ".join(material or fields)
    message = f"the local header differs from what the directory implies in {names}, first at byte {first}"
    yield Damage(rule, where, message, {"offset": first, "fields": list(fields)})


def _disagreements(record: Record, actual: bytes) -> Iterator[Damage]:
    """For archives of other writers: the two copies of each field, compared."""
    where = printable(record.name)
    if len(actual) < LOCAL_FIXED.size or actual[:4] != LOCAL:
        message = f"no local header at byte {record.header}: found {actual[:4].hex(' ') or 'nothing'}"
        yield Damage("header-mismatch", where, message, {"offset": record.header})
        return
    _, _, flags, method, _, _, crc, csize, usize, names, _ = LOCAL_FIXED.unpack_from(actual)
    raw = actual[LOCAL_FIXED.size : LOCAL_FIXED.size + names]
    streamed = bool(flags & HAS_DESCRIPTOR)
    pairs: list[tuple[str, object, object]] = [
        ("name", raw, record.raw),
        ("flags", flags, record.flags),
        ("method", method, record.method),
    ]
    for what, local, central in (
        ("crc", crc, record.crc),
        ("size", usize, record.usize),
        ("compressed size", csize, record.csize),
    ):
        unset = (streamed and local == 0) or local == GIB4
        if not unset:
            pairs.append((what, local, central))
    wrong = [what for what, local, central in pairs if local != central]
    if wrong:
        message = f"local header and directory disagree in {', '.join(wrong)}"
        yield Damage("header-mismatch", where, message, {"offset": record.header, "fields": list(wrong)})


def record_hazards(record: Record) -> Iterator[Damage]:
    """What the directory's flags and method say that a loader would stumble over."""
    where = printable(record.name)
    if record.flags & ENCRYPTED:
        yield Damage("encrypted-record", where, f"the record is marked as encrypted (flags 0x{record.flags:x})")
    elif record.flags & PATCHED:
        yield Damage("encrypted-record", where, f"the record is marked as patch data (flags 0x{record.flags:x})")
    if record.method == 8:
        sizes = {"compressed": record.csize, "bytes": record.usize}
        message = f"deflated from {record.usize} to {record.csize} bytes"
        yield Damage("compressed-record", where, message, sizes)
    elif record.method:
        yield Damage(
            "header-mismatch",
            where,
            f"compression method {record.method}, and torch reads 0 and 8",
            {"method": record.method},
        )
