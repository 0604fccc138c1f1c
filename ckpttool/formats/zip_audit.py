"""The audit of an archive's framing: data descriptors, gaps, overlaps, the whole against its derivation.

Together with the payloads' CRCs this leaves no byte of the file unexplained. Reads headers only.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.formats.zip_archive import DESCRIPTOR, HAS_DESCRIPTOR, LOCAL, Directory, Record
from ckpttool.formats.zip_layout import central_entry, descriptor, end_records
from ckpttool.model import Damage
from ckpttool.source import Source

SHOWN = 20
"""Findings of one kind that are listed; the rest is counted."""


def audit(source: Source, directory: Directory, torch_writer: bool) -> Iterator[Damage]:
    """Yield what the framing holds that it should not. Cost: one small read for each record and gap."""
    ends = []
    for record in directory.records:
        stop, damage = _check_descriptor(source, record, torch_writer, directory.origin)
        ends.append(stop)
        yield from damage
    yield from _check_ownership(source, directory, ends)
    if torch_writer and not directory.shift:
        yield from _check_directory_bytes(source, directory)


def _check_descriptor(source: Source, record: Record, torch_writer: bool, origin: int) -> tuple[int, list[Damage]]:
    """Where the record ends, its descriptor included, and what is wrong with the descriptor."""
    if torch_writer:
        expected = descriptor(record, origin)
    elif record.flags & HAS_DESCRIPTOR:
        expected = _described(source, record)
    else:
        return record.stop, []
    actual = source.read(record.stop, len(expected))
    stop = record.stop + len(expected)
    if actual == expected:
        return stop, []
    what = [
        name
        for name, a, b in (("signature", 0, 4), ("crc", 4, 8), ("sizes", 8, len(expected)))
        if actual[a:b] != expected[a:b]
    ]
    recorded = f"0x{int.from_bytes(actual[4:8], 'little'):08x}" if len(actual) >= 8 else "nothing"
    message = f"the data descriptor disagrees with the directory in {', '.join(what)}: "
    message += f"crc {recorded} against 0x{record.crc:08x}"
    return stop, [Damage("descriptor-mismatch", printable(record.name), message, {"offset": record.stop})]


def _described(source: Source, record: Record) -> bytes:
    """The descriptor that agrees with the directory in the shape (signature, 32 or 64 bit) found in the file."""
    start = source.read(record.stop, 24)
    for width in (4, 8):
        sizes = record.csize.to_bytes(8, "little")[:width] + record.usize.to_bytes(8, "little")[:width]
        full = DESCRIPTOR + record.crc.to_bytes(4, "little") + sizes
        for shape in (full, full[4:]):
            if start.startswith(shape):
                return shape
    return (
        DESCRIPTOR
        + record.crc.to_bytes(4, "little")
        + record.csize.to_bytes(4, "little")
        + record.usize.to_bytes(4, "little")
    )


def _check_ownership(source: Source, directory: Directory, ends: list[int]) -> Iterator[Damage]:
    """Every byte has one owner: no gap between records, no overlap, nothing behind the directory."""
    owned = sorted((record.header, stop, record.name) for record, stop in zip(directory.records, ends, strict=True))
    owned.append((directory.start, directory.stop, "the directory"))
    reach, owner = 0, "the start of the file"
    count = 0
    for start, stop, name in owned:
        if start < reach and name != "the directory":
            count += 1
            if count <= SHOWN:
                yield Damage(
                    "overlapping-records",
                    printable(name),
                    f"begins at byte {start}, and {printable(owner)} ends at byte {reach}",
                )
        elif start > reach and not (reach == 0 and start == directory.origin):
            yield from _gap(source, reach, start, owner, name)
        if stop > reach:
            reach, owner = stop, name
    first_end = directory.end64 if directory.end64 is not None else directory.end
    if first_end > directory.stop:
        yield from _gap(source, directory.stop, first_end, "the directory", "the end of the directory")
    if reach > directory.stop:
        message = f"record {printable(owner)} reaches {reach - directory.start} bytes into the directory"
        yield Damage("overlapping-records", printable(owner), message)


def _gap(source: Source, start: int, stop: int, before: str, after: str) -> Iterator[Damage]:
    content = source.read(start, min(stop - start, 1 << 20))
    hidden = LOCAL in content
    what = "a record that the directory does not list" if hidden else "bytes that no record owns"
    message = f"{stop - start} bytes between {printable(before)} and {printable(after)}: {what}"
    yield Damage("unowned-bytes", f"byte {start}", message, {"bytes": stop - start, "hidden_record": hidden})


def _check_directory_bytes(source: Source, directory: Directory) -> Iterator[Damage]:
    """The directory and its end records, byte for byte against their derivation from names, sizes and CRCs."""
    entries = b"".join(central_entry(r) for r in directory.records)
    expected = entries + end_records(len(directory.records), len(entries), directory.start)
    actual = source.read(directory.start, len(expected))
    if actual == expected:
        return
    first = next((i for i, (a, b) in enumerate(zip(actual, expected, strict=False)) if a != b), len(actual))
    where = "central directory" if first < len(entries) else "end of directory"
    message = f"differs from what torch writes for these records, first at byte {directory.start + first}"
    yield Damage("not-canonical", where, message, {"offset": directory.start + first})


def trailing(source: Source, directory: Directory) -> Iterator[Damage]:
    """Bytes behind the end of the archive, a second archive among them."""
    extra = source.size - directory.stop_of_file
    if extra > 0:
        head = source.read(directory.stop_of_file, 8).hex(" ")
        message = f"{extra} bytes follow the end of the archive, beginning {head}"
        yield Damage("trailing-bytes", f"byte {directory.stop_of_file}", message, {"bytes": extra})
