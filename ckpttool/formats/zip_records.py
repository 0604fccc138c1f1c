"""The records of an archive beside its tree and storages: version, byte order, the checksum of checksums, strangers."""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.pickled import Reading, note_globals
from ckpttool.formats.zip_archive import Directory, Record
from ckpttool.formats.zip_contents import Archive
from ckpttool.formats.zip_layout import chain
from ckpttool.manifest import INSIDE_RECORD
from ckpttool.model import Damage
from ckpttool.source import Source

SMALL = ("version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
MIGRATIONS = ".data/ckpttool_migrations"
"""What this tool notes of the migrations that a checkpoint went through; torch passes records that it does not know."""

_NOTED = 1 << 20
"""Bytes of that note which are read."""

_SCANNED = 64 << 20
"""Bytes of records that are not torch's own in which a pickle is looked for."""


def small_records(reading: Reading, archive: Archive) -> dict[str, str]:
    """The text of the version, byte order, … records, each judged."""
    small: dict[str, str] = {}
    for name in SMALL:
        record = archive.find(name)
        if record is not None:
            text = archive.content(record, 64).decode("ascii", "replace").strip("\n")
            small[name.rpartition("/")[2].lstrip(".")] = text
            _judge_small(reading, name, text, record)
    noted = archive.find(MIGRATIONS)
    if noted is not None:
        small["migrations"] = archive.content(noted, _NOTED).decode("utf-8", "replace")
    if archive.find("version") is None and archive.directory is not None and archive.records:
        reading.report(
            "missing-record", f"{archive.prefix}version", "the archive has no version record: torch.load refuses it"
        )
    return small


def _judge_small(reading: Reading, name: str, text: str, record: Record) -> None:
    good = {
        "version": text.isdigit() and 1 <= int(text) <= 10,
        "byteorder": text in ("little", "big"),
        ".format_version": text == "1",
        ".storage_alignment": text.isdigit() and int(text) > 0,
        ".data/serialization_id": text.isdigit() and len(text) == 40,
    }[name]
    if not good:
        reading.report("bad-version-record", printable(record.name), f"holds {text[:40]!r}, which no torch writes")


def check_chain(source: Source, directory: Directory) -> Iterator[Damage]:
    """The checksum of checksums covers every record written before it, in order."""
    crcs: list[int] = []
    for record in directory.records:
        if record.name.endswith(".data/serialization_id"):
            text = source.read(record.data, min(record.usize, 64))
            computed = len(text) == 40 and text.isdigit() and any(crcs) and text.strip(b"0")
            if computed and int(text[20:]) != chain(crcs):
                message = f"records {int(text[20:])} over the checksums before it, and they give {chain(crcs)}"
                yield Damage("serialization-id", printable(record.name), message, {"records": len(crcs)})
            return
        if record.usize:
            crcs.append(record.crc)


def judge_names(reading: Reading, archive: Archive) -> None:
    """Report names that stand twice, differ in case only, or lead out of the archive."""
    folded: dict[str, str] = {}
    for record in archive.records:
        lower = record.name.lower()
        if lower in folded:
            twin = printable(folded[lower])
            message = (
                "stands twice in the directory"
                if folded[lower] == record.name
                else f"differs from {twin} in case only: torch treats them as one"
            )
            reading.report("duplicate-record", printable(record.name), message)
        folded.setdefault(lower, record.name)
        problem = _name_problem(record.name, archive.prefix)
        if problem:
            reading.report("bad-record-name", printable(record.name), problem)
    if archive.records and archive.prefix == "":
        reading.report("bad-record-name", "archive", "the records stand in no top folder: torch.load refuses the file")


def _name_problem(name: str, prefix: str) -> str:
    if "\0" in name:
        return "the name holds a NUL byte, where other readers end it"
    if name.startswith("/") or name[1:2] == ":":
        return "an absolute path"
    if "\\" in name or ".." in name.split("/"):
        return "a path that leaves the archive"
    if prefix and not name.startswith(prefix):
        return f"outside the top folder {printable(prefix)!r}"
    return ""


def scan_foreign(reading: Reading, archive: Archive, script: bool) -> None:
    """Look into every record that is not torch's own: a pickle there is judged like the tree itself."""
    main = archive.find("data.pkl")
    strange = [r for r in archive.records if r is not main and not _is_own(r, archive, script)]
    if strange and not script:
        names = ", ".join(printable(r.name) for r in strange[:5]) + (" …" if len(strange) > 5 else "")
        reading.report(
            "foreign-record",
            printable(strange[0].name),
            f"{len(strange)} records that torch.save does not write: {names}",
        )
    left = _SCANNED  # several names may share one payload
    for record in strange[:1000]:
        content = archive.content(record, min(left, 16 << 20))
        left -= len(content)
        if content[:1] == b"\x80" or record.name.lower().endswith((".pkl", ".pickle", ".debug_pkl")):
            outcome = Machine(content, limits=reading.limits).run()
            own_code = script and record.name.endswith(".debug_pkl")
            note_globals(reading, outcome.names, printable(record.name), beside=not own_code)


def _is_own(record: Record, archive: Archive, script: bool) -> bool:
    name = record.name.removeprefix(archive.prefix)
    if name in (*SMALL, MIGRATIONS, INSIDE_RECORD) or (script and name == "constants.pkl"):
        return True
    folder, _, key = name.rpartition("/")
    if folder == "data" or (script and folder == "constants"):
        return key.isdigit() or (folder == "data" and f"data/{key}" == name and not key.endswith(".pkl"))
    return False
