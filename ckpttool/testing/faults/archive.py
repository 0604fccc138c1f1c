"""Damage to the framing of an archive: its headers, its directory, its small records."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from ckpttool.testing import zips
from ckpttool.testing.faults.registry import Damaging, add, fault
from ckpttool.testing.faults.spans import edit_field, largest, splice
from ckpttool.testing.zips import Record, read_records, replaced, tail_of, torch_zip

ZIP = "torch-zip"

# --- one field of one header ---------------------------------------------------------------------------


def _at_local(data: bytes) -> int:
    return largest(data).header


def _at_entry(data: bytes) -> int:
    return largest(data).entry


def _at_descriptor(data: bytes) -> int:
    return largest(data).stop


STRUCTURES: dict[str, tuple[dict[str, tuple[int, int]], Callable[[bytes], int]]] = {
    "local": (zips.LOCAL, _at_local),
    "central": (zips.CENTRAL, _at_entry),
    "descriptor": (zips.DESCRIPTOR, _at_descriptor),
    "end64": (zips.END64, lambda data: zips.end_structures(data)[0]),
    "locator": (zips.LOCATOR, lambda data: zips.end_structures(data)[1]),
    "end": (zips.END, lambda data: zips.end_structures(data)[2]),
}
"""Structure -> its fields, and where one stands: that of the largest record, where there are several."""

CAUGHT = {
    "local": "header-mismatch",
    "descriptor": "descriptor-mismatch",
    "central": "directory-damaged",
    "end64": "directory-damaged",
    "locator": "directory-damaged",
    "end": "directory-damaged",
    "central.flags": "not-canonical",
    "central.crc": "descriptor-mismatch",
    "central.compressed-size": "descriptor-mismatch",
    "central.size": "descriptor-mismatch",
    "end.signature": "truncated",
    "central.offset": "header-mismatch",
    "central.method": "header-mismatch",
}
"""The rule that must speak, by structure or field."""


def _edited(structure: str, field: str) -> Damaging:
    fields, locate = STRUCTURES[structure]
    offset, width = fields[field]

    def apply(data: bytes, rng: random.Random) -> bytes:
        return edit_field(data, locate(data) + offset, width, lambda value: value ^ 4)

    return apply


for _structure, (_fields, _) in STRUCTURES.items():
    for _field in _fields:
        _rule = CAUGHT.get(f"{_structure}.{_field}", CAUGHT[_structure])
        _text = f"the {_field.replace('-', ' ')} of the {_structure} header is off"
        add(f"{_structure}-{_field}", _rule, (ZIP,), _text, _edited(_structure, _field))


@fault("local-name", "header-mismatch", ZIP)
def local_name(data: bytes, rng: random.Random) -> bytes:
    """The local header calls the record something else than the directory."""
    place = largest(data)
    return edit_field(data, place.header + 30, 1, lambda value: value ^ 1)


@fault("local-padding", "not-canonical", ZIP)
def local_padding(data: bytes, rng: random.Random) -> bytes:
    """The padding field in front of the data is not what torch writes."""
    place = largest(data)
    return edit_field(data, place.header + 30 + len(place.name.encode()), 1, lambda value: value ^ 1)


@fault("central-time", "not-canonical", ZIP)
def central_time(data: bytes, rng: random.Random) -> bytes:
    """A field of the directory that no reader uses is not what torch writes."""
    return edit_field(data, largest(data).entry + 12, 2, lambda value: value ^ 4)


@fault("central-swapped-sizes", "descriptor-mismatch", ZIP)
def central_swapped_sizes(data: bytes, rng: random.Random) -> bytes:
    """The directory states a record's sizes in the other byte order."""
    entry = largest(data).entry
    for start in (entry + 20, entry + 24):
        data = splice(data, start, start + 4, data[start : start + 4][::-1])
    return data


@fault("encrypted", "encrypted-record", ZIP)
def encrypted(data: bytes, rng: random.Random) -> bytes:
    """The directory says that a record is encrypted; scanners then skip it."""
    place = largest(data)
    data = edit_field(data, place.header + 6, 2, lambda value: value | 1)
    return edit_field(data, place.entry + 8, 2, lambda value: value | 1)


@fault("overlapping-records", "overlapping-records", ZIP)
def overlapping_records(data: bytes, rng: random.Random) -> bytes:
    """Two entries of the directory point at one record."""
    places = zips.placed(data)
    target = places[-3] if places[-3].header != largest(data).header else places[-4]
    offset = largest(data).header
    return edit_field(data, target.entry + 42, 4, lambda value: offset)


# --- records added, taken away, renamed ----------------------------------------------------------------


def _rebuilt(name: str, rule: str, text: str, change: Callable[[list[Record]], list[Record]]) -> None:
    def apply(data: bytes, rng: random.Random) -> bytes:
        return torch_zip(change(read_records(data)))

    add(name, rule, (ZIP,), text, apply)


def _folder(records: list[Record]) -> str:
    return records[0].name.split("/")[0]


def _without(tail: str) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [r for r in records if tail_of(r.name) != tail]


def _with(name: str, data: bytes, *, listed: bool = True) -> Callable[[list[Record]], list[Record]]:
    return lambda rs: [*rs, Record(name.format(folder=_folder(rs)), data, listed=listed)]


def _deflated(tail: str, fill: bytes | None = None) -> Callable[[list[Record]], list[Record]]:
    def change(records: list[Record]) -> list[Record]:
        return [
            replace(r, deflated=True, data=r.data if fill is None else r.data + fill) if tail_of(r.name) == tail else r
            for r in records
        ]

    return change


EVIL = b"cposix\nsystem\n(X\x04\x00\x00\x00truetR."
"""A pickle that runs a command in whatever unpickles it."""

_rebuilt("missing-pickle", "missing-record", "the archive has no data.pkl", _without("data.pkl"))
_rebuilt("missing-version", "missing-record", "the archive has no version", _without("version"))
_rebuilt("missing-storage", "storage-missing", "a storage was left out of the archive", _without("data/0"))
_rebuilt("doubled-record", "duplicate-record", "data.pkl stands twice", _with("{folder}/data.pkl", EVIL))
_rebuilt("case-twin", "duplicate-record", "DATA.PKL beside data.pkl", _with("{folder}/DATA.PKL", EVIL))
_rebuilt(
    "upper-case-name",
    "case-name",
    "the pickle is called DATA.PKL: torch finds it, scanners do not",
    lambda rs: [replace(r, name=r.name.replace("data.pkl", "DATA.PKL")) for r in rs],
)
_rebuilt("extra-pickle", "hidden-pickle", "a pickle that the tree does not need", _with("{folder}/evil.pkl", EVIL))
_rebuilt("foreign-record", "foreign-record", "a text beside the storages", _with("{folder}/notes.txt", b"hello"))
_rebuilt(
    "idle-storage", "unreachable-storage", "a storage that no tensor uses", _with("{folder}/data/999", bytes(range(64)))
)
_rebuilt(
    "hidden-record",
    "unowned-bytes",
    "a local record that the directory does not list",
    _with("{folder}/evil.pkl", EVIL, listed=False),
)
_rebuilt("climbing-name", "bad-record-name", "a name that climbs out", _with("{folder}/../../x", b"x"))
_rebuilt("absolute-name", "bad-record-name", "a name that starts at the root", _with("/etc/x", b"x"))
_rebuilt("deflated-storage", "compressed-record", "a storage was compressed", _deflated("data/0"))
_rebuilt("inflate-bomb", "inflate-bomb", "a pickle that inflates a thousandfold", _deflated("data.pkl", bytes(1 << 22)))
_rebuilt(
    "unordered-digits",
    "duplicate-record",
    "a storage stands twice, with other content",
    lambda rs: [*rs, Record(next(r.name for r in rs if tail_of(r.name) == "data/0"), b"\1" * 8)],
)


def _content(name: str, rule: str, text: str, tail: str, data: bytes) -> None:
    _rebuilt(name, rule, text, lambda records: replaced(records, tail, data))


_content("version-text", "bad-version-record", "the version is no number", "version", b"x\n")
_content("version-99", "bad-version-record", "a version that no torch has written", "version", b"99\n")
_content("byteorder-text", "bad-version-record", "the byte order is no byte order", "byteorder", b"middle")
_content("alignment-text", "bad-version-record", "the alignment is no number", ".storage_alignment", b"xx")
_content("empty-pickle", "pickle-malformed", "the pickle is empty", "data.pkl", b"")
_content("evil-pickle", "unsafe-global", "the pickle runs a command", "data.pkl", b"\x80\x02" + EVIL)


@fault("serialization-id", "serialization-id", ZIP)
def serialization_id(data: bytes, rng: random.Random) -> bytes:
    """A record was exchanged together with its checksum; only the chain over all of them tells."""
    records = read_records(data)
    target = largest(data).name
    changed = [replace(r, data=r.data[:-1] + bytes([r.data[-1] ^ 1])) if r.name == target else r for r in records]
    return zips.archive(changed)


@fault("no-checksums", "crc-not-recorded", ZIP)
def no_checksums(data: bytes, rng: random.Random) -> bytes:
    """Saved with checksums turned off: nothing can be proved."""
    return torch_zip(read_records(data), checksums=False)


@fault("unaligned", "misaligned", ZIP)
def unaligned(data: bytes, rng: random.Random) -> bytes:
    """Rewritten without padding: storages no longer begin on multiples of 64 bytes."""
    return torch_zip(read_records(data), alignment=1)


@fault("torchscript", "contains-code", ZIP)
def torchscript(data: bytes, rng: random.Random) -> bytes:
    """The archive carries a program."""
    records = read_records(data)
    folder = _folder(records)
    program = Record(f"{folder}/code/__torch__.py", b"class Net(Module):\n  pass\n")
    return torch_zip([*records, Record(f"{folder}/constants.pkl", b"\x80\x02)."), program])
