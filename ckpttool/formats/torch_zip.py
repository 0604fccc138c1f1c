"""Zip archives of ``torch.save`` (torch 1.6 and later) and TorchScript, as written, re-zipped or damaged.

Source: torch 2.13 ``torch/serialization.py``, ``caffe2/serialize/inline_container.{h,cc}``.
"""

from __future__ import annotations

from ckpttool.errors import printable
from ckpttool.formats import zip_audit
from ckpttool.formats.pickled import Reading, Tree, lift_arrays, read_pickle, scan_rest
from ckpttool.formats.zip_archive import Directory, Record, is_exported, looks_like_zip, read_directory
from ckpttool.formats.zip_contents import Archive, inflate
from ckpttool.formats.zip_open import open_archive
from ckpttool.formats.zip_records import check_chain, judge_names, scan_foreign, small_records
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Checksum, Extent, Json, Mapping, Span, Storage, Value
from ckpttool.source import Source

NAME = "torch-zip"


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


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe an archive from its directory, or from its local headers where the directory is lost."""
    return _read(source, limits, thorough=False)


def read_thoroughly(source: Source, limits: Limits) -> Checkpoint:
    """Describe an archive and audit its framing: descriptors, gaps, end records, the chain of checksums."""
    return _read(source, limits, thorough=True)


def _read(source: Source, limits: Limits, *, thorough: bool) -> Checkpoint:
    reading = Reading(source.name, limits)
    return described(reading, open_archive(reading, source, thorough=thorough), thorough=thorough)


def described(reading: Reading, archive: Archive, *, thorough: bool = False) -> Checkpoint:
    """The checkpoint in an archive whose records are located, however they were found."""
    source = archive.source
    if thorough and archive.directory is not None:
        reading.damage.extend(zip_audit.audit(source, archive.directory, archive.torch_writer))
        reading.damage.extend(check_chain(source, archive.directory))
    small = small_records(reading, archive)
    trees = _read_trees(reading, archive)
    script = archive.find("constants.pkl") is not None
    if script:
        message = "a TorchScript archive: it holds code that runs when it is loaded"
        reading.report("contains-code", "constants.pkl", message)
    swapped = small.get("byteorder") == "big"
    extents = _extents(archive)
    storages = _attach(reading, archive, extents, trees, swapped)
    judge_names(reading, archive)
    scan_foreign(reading, archive, script)
    root = _root(reading, trees)
    main = archive.find("data.pkl")
    nodes, storages = lift_arrays(reading, storages, main.name if main else "")
    metadata: dict[str, Json] = {
        **small,
        "prefix": archive.prefix.rstrip("/"),
        "records": len(archive.records),
        "crc_recorded": _recorded(archive),
        "torch_writer": archive.torch_writer,
        "salvaged": archive.directory is None,
    }
    return Checkpoint(
        source.name,
        "torchscript" if script else NAME,
        nodes,
        root,
        storages,
        extents,
        tuple(reading.globals),
        tuple(reading.damage),
        (source.name,),
        source.size,
        metadata,
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
        reading.report("missing-record", f"{archive.prefix}data.pkl", "the archive has no data.pkl: no tree to read")
    return trees


def _read_tree(reading: Reading, archive: Archive, record: Record) -> Tree:
    limits = reading.limits
    where = printable(record.name)
    if record.name.rpartition("/")[2] not in ("data.pkl", "constants.pkl"):
        reading.report(
            "case-name", where, "torch finds this record although its name differs in case; other readers do not"
        )
    if record.csize > limits.pickle_bytes:
        reading.report("over-limit", where, f"a pickle of {record.csize} bytes, and {limits.pickle_bytes} is the limit")
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
    reading: Reading, archive: Archive, extents: tuple[Extent, ...], trees: list[tuple[str, Tree]], swapped: bool
) -> tuple[Storage, ...]:
    """Give each storage of each tree its bytes."""
    exact = dict(zip([record.name for record in archive.records], range(len(extents)), strict=True))
    lower: dict[str, int] = {}
    attached = list(reading.storages)
    for folder, tree in trees:
        home = f"{archive.prefix}{folder}/"
        for i in range(tree.values.first, tree.values.first + len(tree.values.storages)):
            name = home + attached[i].key
            found = exact.get(name)
            if found is None:  # torch ignores case
                lower = lower or {archive.records[j].name.lower(): j for j in reversed(range(len(extents)))}
                found = lower.get(name.lower())
            if found is not None:
                attached[i] = _with_bytes(attached[i], archive.records[found], extents[found], swapped)
    return tuple(attached)


def _with_bytes(storage: Storage, record: Record, extent: Extent, swapped: bool) -> Storage:
    # What the extent says already is not made twice: archives hold 100,000 records.
    checksum = extent.checksum or Checksum("crc32", record.crc) if record.crc else None
    wide = swapped and storage.dtype.bits > 8
    return Storage(
        storage.key, storage.dtype, storage.nbytes, extent.span, checksum, storage.device, record.name, None, wide
    )  # fmt: skip


def _recorded(archive: Archive) -> bool:
    """Whether the writer computed checksums; torch can be told not to, and writes zeros."""
    return any(record.crc for record in archive.records)


def _extents(archive: Archive) -> tuple[Extent, ...]:
    """One extent for each record; a record that stands twice gets a number so that names stay unique."""
    seen: dict[str, int] = {}
    extents = []
    source, size = archive.source.name, archive.source.size
    recorded, listed = _recorded(archive), archive.directory is not None
    for name, _, _, data, csize, usize, crc, method, *_ in archive.records:
        count = seen[name] = seen.get(name, 0) + 1
        proved = usize and recorded and (listed or crc)
        checksum = Checksum("crc32", crc) if proved else None
        span = Span(source, data, max(data, min(data + csize, size)))
        unique = name if count == 1 else f"{name} #{count}"
        extents.append(Extent(unique, span, checksum, "deflate" if method else "stored", usize))
    return tuple(extents)
