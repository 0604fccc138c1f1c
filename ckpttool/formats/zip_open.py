"""Opening an archive: through its directory, or from local header to local header where that is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckpttool.errors import printable
from ckpttool.formats import zip_audit
from ckpttool.formats.local_headers import is_torch_writer, locate, parse_local, record_hazards
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.pickled import Reading
from ckpttool.formats.torch_values import TorchValues
from ckpttool.formats.zip_archive import DEFLATED, Record, read_directory
from ckpttool.formats.zip_contents import Archive
from ckpttool.formats.zip_walk import Walk, walk_records
from ckpttool.limits import Limits
from ckpttool.model import Damage
from ckpttool.source import Source

_SHOWN = 20


def open_archive(reading: Reading, source: Source, *, thorough: bool) -> Archive:
    """An archive with its payloads located; what is wrong with its framing goes into the reading's damage.

    ``thorough`` reads every local header; else offsets are derived where the layout proves itself.
    """
    directory = read_directory(source, reading.limits)
    if directory is None:
        return _salvage(reading, source)
    reading.damage.extend(directory.damage)
    reading.damage.extend(zip_audit.trailing(source, directory))
    torch_writer = is_torch_writer(directory.records)
    alignment = _alignment(source, directory.records)
    following = None if thorough else directory.start
    records, damage = locate(source, directory.records, torch_writer, alignment, directory.origin, following)
    _extend_some(reading, [*damage, *_hazards(records)])
    for record in records:
        if record.stop > source.size:
            short = record.stop - source.size
            reading.report(
                "truncated",
                printable(record.name),
                f"{short} bytes of the record lie behind the end of the file",
                bytes=short,
            )
    prefix = _prefix(tuple(records))
    directory = replace(directory, records=tuple(records))
    return Archive(source, directory.records, prefix, torch_writer, alignment, directory)


def _hazards(records: list[Record]) -> Iterator[Damage]:
    """What flags and methods say, compressed records counted in one finding."""
    deflated = []
    for record in records:
        if "/code/" in record.name:  # TorchScript deflates its source text
            continue
        if record.method == DEFLATED:
            deflated.append(record)
        yield from (d for d in record_hazards(record) if d.rule != "compressed-record")
    if len(deflated) == 1:
        yield from (d for d in record_hazards(deflated[0]) if d.rule == "compressed-record")
    elif deflated:
        sizes = {"compressed": sum(r.csize for r in deflated), "bytes": sum(r.usize for r in deflated)}
        message = f"{len(deflated)} of {len(records)} records are deflated, "
        message += f"from {sizes['bytes']} to {sizes['compressed']} bytes"
        facts = {"records": len(deflated), **sizes}
        yield Damage("compressed-record", printable(deflated[0].name), message, facts)


def _extend_some(reading: Reading, damage: list[Damage]) -> None:
    """Keep the first findings of each rule; one that counts stands for the rest."""
    for rule in dict.fromkeys(d.rule for d in damage):
        same = [d for d in damage if d.rule == rule]
        reading.damage.extend(same[:_SHOWN])
        if len(same) > _SHOWN:
            reading.report(rule, "archive", f"{len(same) - _SHOWN} more records with {rule}", more=len(same) - _SHOWN)


def _alignment(source: Source, records: tuple[Record, ...]) -> int:
    """The alignment that the archive records, 64 where it records none that is possible."""
    for record in records:
        if record.name.endswith(".storage_alignment") and 0 < record.usize <= 8:
            parsed = parse_local(source, record.header)
            text = source.read(parsed[0].data, record.usize) if parsed else b""
            if text.isdigit() and 0 < int(text) <= 1 << 20:
                return int(text)
    return 64


def _prefix(records: tuple[Record, ...]) -> str:
    """The top folder with its slash: that of the record that looks like the tree, else of the first one."""
    for record in records:
        folder, slash, name = record.name.rpartition("/")
        if name.lower() == "data.pkl":
            return folder + slash
    return records[0].name.partition("/")[0] + "/" if records and "/" in records[0].name else ""


def _salvage(reading: Reading, source: Source) -> Archive:
    sizes: dict[str, int] = {}

    def size_of(record: Record) -> int | None:
        name = record.name.rpartition("/")[2]
        if name.lower() == "data.pkl":
            return _pickle_size(source, record, sizes, reading.limits)
        return sizes.get(name) if "/data/" in record.name else None

    walk = walk_records(source, size_of, reading.limits)
    records = walk.records if walk.partial is None else (*walk.records, _clipped(walk.partial, source.size))
    _report_truncation(reading, source, walk, sizes)
    return Archive(source, records, _prefix(records), True, 64, None)


def _pickle_size(source: Source, record: Record, sizes: dict[str, int], limits: Limits) -> int | None:
    """Where the tree's pickle ends, noting the sizes of the storages that it mentions."""
    data = source.window(record.data, min(source.size, record.data + limits.pickle_bytes))
    values = TorchValues()
    outcome = Machine(data, reducers=values.reducers, persistent=values.persistent, limits=limits).run()
    sizes.update((s.key, s.nbytes) for s in values.storages)
    return outcome.end if outcome.complete else None


def _clipped(record: Record, size: int) -> Record:
    return record._replace(csize=max(0, size - record.data), usize=max(0, size - record.data), crc=0)


def _report_truncation(reading: Reading, source: Source, walk: Walk, sizes: dict[str, int]) -> None:
    whole = {r.name.rpartition("/")[2] for r in walk.records if "/data/" in r.name}
    kept = sum(size for key, size in sizes.items() if key in whole)
    lost = sum(sizes.values()) - kept
    message = f"{walk.why}: {len(whole)} of {len(sizes)} storages are whole"
    if lost:
        message += f", {lost} of {lost + kept} payload bytes are lost"
    record = printable(walk.partial.name) if walk.partial else ""
    hint = "fetch the file again, or use the checkpoint before this one"
    reading.report(
        "truncated",
        f"byte {source.size}",
        message,
        hint,
        whole_storages=len(whole),
        storages=len(sizes),
        lost_bytes=lost,
        missing_in_record=walk.missing,
        record=record,
    )
