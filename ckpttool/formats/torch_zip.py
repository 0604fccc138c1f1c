"""Zip archives of ``torch.save`` (torch 1.6 and later) and TorchScript, as written, re-zipped or damaged.

Source: torch 2.13 ``torch/serialization.py``, ``caffe2/serialize/inline_container.{h,cc}``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckpttool.errors import printable
from ckpttool.formats import zip_audit
from ckpttool.formats.local_headers import is_torch_writer, locate, parse_local, record_hazards
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.pickled import Reading, Tree, lift_arrays, note_globals, read_pickle, scan_rest
from ckpttool.formats.torch_values import TorchValues
from ckpttool.formats.zip_archive import (
    DEFLATED,
    Directory,
    Record,
    is_exported,
    looks_like_zip,
    read_directory,
)
from ckpttool.formats.zip_layout import chain
from ckpttool.formats.zip_walk import Walk, walk_records
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Checksum, Damage, Extent, Json, Mapping, Span, Storage, Value
from ckpttool.source import Source

NAME = "torch-zip"

_SMALL = ("version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
_SHOWN = 20
_SCANNED = 64 << 20
"""Bytes of records that are not torch's own in which a pickle is looked for."""


def sniff(source: Source) -> bool:
    """Whether this is a zip archive with a pickle as torch names it, or the start of one."""
    if not looks_like_zip(source):
        return False
    directory = read_directory(source, Limits(records=64))
    if directory is None or not directory.records:
        return source.read(0, 4) == b"PK\x03\x04"
    if _has_tree(directory):
        return True
    names = [r.name.lower() for r in directory.records]
    if is_exported(names):
        # Its weights come first, and what torch.load would open may stand behind any number of records.
        return _has_tree(read_directory(source, DEFAULT))
    return any(n.endswith((".data/serialization_id", "/byteorder")) or "/data/" in n for n in names)


def _has_tree(directory: Directory | None) -> bool:
    """Whether a record has the name of torch's pickle."""
    records = () if directory is None else directory.records
    return any(r.name.lower().rpartition("/")[2] in ("data.pkl", "constants.pkl") for r in records)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's records with their payloads located, and how names are looked up in it."""

    source: Source
    records: tuple[Record, ...]
    prefix: str
    torch_writer: bool
    alignment: int
    directory: Directory | None

    def find(self, name: str) -> Record | None:
        """The record ``<prefix>/<name>``; case is ignored where no record matches exactly, as torch does."""
        wanted = f"{self.prefix}{name}"
        exact = next((r for r in self.records if r.name == wanted), None)
        return exact or next((r for r in self.records if r.name.lower() == wanted.lower()), None)

    def content(self, record: Record, most: int) -> bytes:
        """Up to ``most`` bytes of a record, inflated where it is deflated."""
        raw = self.source.read(record.data, min(record.csize, most))
        return raw if record.method == 0 else inflate(raw, most)[0]


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe an archive from its directory, or from its local headers where the directory is lost."""
    return _read(source, limits, thorough=False)


def read_thoroughly(source: Source, limits: Limits) -> Checkpoint:
    """Describe an archive and audit its framing: descriptors, gaps, end records, the chain of checksums."""
    return _read(source, limits, thorough=True)


def _read(source: Source, limits: Limits, *, thorough: bool) -> Checkpoint:
    reading = Reading(source.name, limits)
    archive = _open(reading, source, thorough=thorough)
    if thorough and archive.directory is not None:
        reading.damage.extend(zip_audit.audit(source, archive.directory, archive.torch_writer))
        reading.damage.extend(_check_chain(source, archive.directory))
    small = _small_records(reading, archive)
    trees = _read_trees(reading, archive)
    script = archive.find("constants.pkl") is not None
    if script:
        message = "a TorchScript archive: it holds code that runs when it is loaded"
        reading.report("contains-code", "constants.pkl", message)
    swapped = small.get("byteorder") == "big"
    storages = _attach(reading, archive, trees, swapped)
    _judge_names(reading, archive)
    _scan_foreign(reading, archive, script)
    root = _root(reading, trees)
    main = archive.find("data.pkl")
    nodes, storages = lift_arrays(reading, storages, main.name if main else "")
    recorded = any(r.crc for r in archive.records)
    metadata: dict[str, Json] = {
        **small,
        "prefix": archive.prefix.rstrip("/"),
        "records": len(archive.records),
        "crc_recorded": recorded,
        "torch_writer": archive.torch_writer,
        "salvaged": archive.directory is None,
    }
    return Checkpoint(
        source.name,
        "torchscript" if script else NAME,
        nodes,
        root,
        storages,
        _extents(archive, recorded),
        tuple(reading.globals),
        tuple(reading.damage),
        (source.name,),
        source.size,
        metadata,
    )


# --- opening ---------------------------------------------------------------------------------------------


def _open(reading: Reading, source: Source, *, thorough: bool) -> Archive:
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
            reading.report(
                rule, "archive", f"{len(same) - _SHOWN} more records with {rule}", more=len(same) - _SHOWN
            )


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


# --- the trees -------------------------------------------------------------------------------------------


def _read_trees(reading: Reading, archive: Archive) -> list[tuple[str, Tree]]:
    """``data.pkl`` and, in TorchScript archives, ``constants.pkl``, each with the folder of its storages."""
    trees = []
    for name, folder in (("data.pkl", "data"), ("constants.pkl", "constants")):
        record = archive.find(name)
        if record is not None:
            trees.append((folder, _read_tree(reading, archive, record)))
    if not trees and archive.directory is not None:
        reading.report(
            "missing-record", f"{archive.prefix}data.pkl", "the archive has no data.pkl: no tree to read"
        )
    return trees


def _read_tree(reading: Reading, archive: Archive, record: Record) -> Tree:
    limits = reading.limits
    where = printable(record.name)
    if record.name.rpartition("/")[2] not in ("data.pkl", "constants.pkl"):
        reading.report(
            "case-name",
            where,
            "torch finds this record although its name differs in case; other readers do not",
        )
    if record.csize > limits.pickle_bytes:
        reading.report(
            "over-limit", where, f"a pickle of {record.csize} bytes, and {limits.pickle_bytes} is the limit"
        )
    stop = min(record.stop, record.data + limits.pickle_bytes, archive.source.size)
    data: bytes | memoryview = archive.source.window(record.data, stop)
    if record.method:
        data, bomb = inflate(bytes(data), limits.inflated_bytes, limits.inflate_ratio)
        if bomb:
            reading.report("inflate-bomb", where, bomb)
    tree = read_pickle(reading, data, where, base=None if record.method else record.data)
    if tree.outcome.complete:
        scan_rest(reading, data, tree.outcome.end, where)
    return tree


def inflate(raw: bytes, most: int, ratio: int = 200) -> tuple[bytes, str]:
    """Inflate at most ``most`` bytes; the second value says why it stopped early, if it did."""
    bound = min(most, len(raw) * ratio + (1 << 20))
    engine = zlib.decompressobj(-15)
    try:
        data = engine.decompress(raw, bound)
    except zlib.error as error:
        return b"", f"cannot be inflated: {error}"
    if engine.unconsumed_tail or not engine.eof:
        return data, f"{len(raw)} bytes inflate to more than {bound}" if len(
            data
        ) >= bound else "the deflated data end early"
    return data, ""


def _root(reading: Reading, trees: list[tuple[str, Tree]]) -> int | None:
    """The tree's root; TorchScript constants that hold tensors stand beside the module."""
    roots = [(folder, tree) for folder, tree in trees if tree.root is not None]
    if not roots:
        return None
    if len(roots) == 1 or not roots[1][1].values.storages:
        return roots[0][1].root
    keys = tuple(reading.arena.put(Value(name)) for name in ("module", "constants"))
    return reading.arena.put(Mapping("dict", keys, tuple(tree.root or 0 for _, tree in roots)))


# --- storages and extents --------------------------------------------------------------------------------


def _attach(
    reading: Reading, archive: Archive, trees: list[tuple[str, Tree]], swapped: bool
) -> tuple[Storage, ...]:
    """Give each storage of each tree its bytes."""
    lower: dict[str, Record] = {}
    exact: dict[str, Record] = {}
    for record in archive.records:
        lower.setdefault(record.name.lower(), record)
        exact[record.name] = record
    attached = list(reading.storages)
    for folder, tree in trees:
        for i in range(tree.values.first, tree.values.first + len(tree.values.storages)):
            storage = attached[i]
            name = f"{archive.prefix}{folder}/{storage.key}"
            found = exact.get(name) or lower.get(name.lower())
            if found is not None:
                attached[i] = _with_bytes(storage, archive, found, swapped)
    return tuple(attached)


def _with_bytes(storage: Storage, archive: Archive, record: Record, swapped: bool) -> Storage:
    stop = min(record.stop, archive.source.size)
    span = Span(archive.source.name, record.data, max(record.data, stop))
    checksum = Checksum("crc32", record.crc) if record.crc else None
    wide = swapped and storage.dtype.bits > 8
    return Storage(
        storage.key, storage.dtype, storage.nbytes, span, checksum, storage.device, record.name, None, wide
    )


def _extents(archive: Archive, recorded: bool) -> tuple[Extent, ...]:
    """One extent for each record; a record that stands twice gets a number so that names stay unique."""
    seen: dict[str, int] = {}
    extents = []
    for record in archive.records:
        count = seen[record.name] = seen.get(record.name, 0) + 1
        name = record.name if count == 1 else f"{record.name} #{count}"
        proved = recorded and (archive.directory is not None or record.crc)
        checksum = Checksum("crc32", record.crc) if proved and record.usize else None
        stop = max(record.data, min(record.stop, archive.source.size))
        method = "stored" if record.method == 0 else "deflate"
        extents.append(
            Extent(name, Span(archive.source.name, record.data, stop), checksum, method, record.usize)
        )
    return tuple(extents)


# --- the small records -----------------------------------------------------------------------------------


def _small_records(reading: Reading, archive: Archive) -> dict[str, str]:
    """The text of the version, byte order, … records, each judged."""
    small: dict[str, str] = {}
    for name in _SMALL:
        record = archive.find(name)
        if record is not None:
            text = archive.content(record, 64).decode("ascii", "replace").strip("\n")
            small[name.rpartition("/")[2].lstrip(".")] = text
            _judge_small(reading, name, text, record)
    if archive.find("version") is None and archive.directory is not None and archive.records:
        reading.report(
            "missing-record",
            f"{archive.prefix}version",
            "the archive has no version record: torch.load refuses it",
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
        reading.report(
            "bad-version-record", printable(record.name), f"holds {text[:40]!r}, which no torch writes"
        )


def _check_chain(source: Source, directory: Directory) -> Iterator[Damage]:
    """The checksum of checksums covers every record written before it, in order."""
    crcs: list[int] = []
    for record in directory.records:
        if record.name.endswith(".data/serialization_id"):
            text = source.read(record.data, min(record.usize, 64))
            computed = len(text) == 40 and text.isdigit() and any(crcs) and text.strip(b"0")
            if computed and int(text[20:]) != chain(crcs):
                message = (
                    f"records {int(text[20:])} over the checksums before it, and they give {chain(crcs)}"
                )
                yield Damage("serialization-id", printable(record.name), message, {"records": len(crcs)})
            return
        if record.usize:
            crcs.append(record.crc)


# --- names and foreign records ---------------------------------------------------------------------------


def _judge_names(reading: Reading, archive: Archive) -> None:
    folded: dict[str, str] = {}
    for record in archive.records:
        shown = printable(record.name)
        lower = record.name.lower()
        if lower in folded:
            twin = printable(folded[lower])
            message = (
                "stands twice in the directory"
                if folded[lower] == record.name
                else f"differs from {twin} in case only: torch treats them as one"
            )
            reading.report("duplicate-record", shown, message)
        folded.setdefault(lower, record.name)
        problem = _name_problem(record.name, archive.prefix)
        if problem:
            reading.report("bad-record-name", shown, problem)
    if archive.records and archive.prefix == "":
        reading.report(
            "bad-record-name", "archive", "the records stand in no top folder: torch.load refuses the file"
        )


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


def _scan_foreign(reading: Reading, archive: Archive, script: bool) -> None:
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
    if name in _SMALL or (script and name == "constants.pkl"):
        return True
    folder, _, key = name.rpartition("/")
    if folder == "data" or (script and folder == "constants"):
        return key.isdigit() or (folder == "data" and f"data/{key}" == name and not key.endswith(".pkl"))
    return False
