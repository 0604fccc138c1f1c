"""The layout of ``torch.save`` before 1.6: five pickles, then each storage as a count and its raw bytes.

It records no checksum. Source: torch 2.13 ``torch/serialization.py`` ``_legacy_save`` and ``_legacy_load``.
"""

from __future__ import annotations

from dataclasses import replace

from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.pickled import Reading, Tree, lift_arrays, note_globals, read_pickle
from ckpttool.formats.stack import DictOf, ListOf
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Extent, Json, Span, Storage
from ckpttool.source import Source

NAME = "torch-legacy"

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_MAGIC_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PROTOCOL_PICKLE = b"\x80\x02M\xe9\x03."
OPENING = _MAGIC_PICKLE + _PROTOCOL_PICKLE
"""What every file of this format begins with."""


def sniff(source: Source) -> bool:
    """Whether the file starts with torch's magic number, or with its protocol number where the magic is damaged."""
    head = source.read(0, 32)
    if head.startswith(_MAGIC_PICKLE):
        return True
    return head[:2] == b"\x80\x02" and head[15:21] == _PROTOCOL_PICKLE


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe a legacy file: its header pickles, its tree, and where each storage lies."""
    reading = Reading(source.name, limits)
    data = source.window(0, min(source.size, limits.pickle_bytes))
    header, at = _read_header(reading, source, data)
    tree = read_pickle(reading, data, "main pickle", start=at, modules=True) if at else None
    extents: list[Extent] = [Extent("header", Span(source.name, 0, at))] if at else []
    if tree is not None and tree.root is not None:
        extents += _read_table(reading, source, data, tree, at, header)
    elif tree is not None and tree.outcome.cut:
        _report_cut(reading, source)
    nodes, storages = lift_arrays(reading, tuple(reading.storages), "tree")
    return Checkpoint(
        source.name,
        NAME,
        nodes,
        None if tree is None else tree.root,
        storages,
        tuple(extents),
        tuple(reading.globals),
        tuple(reading.damage),
        (source.name,),
        source.size,
        header,
    )


def _report_cut(reading: Reading, source: Source) -> None:
    message = "the file ends before its tree does: no storage can be found"
    reading.report("truncated", f"byte {source.size}", message, "fetch the file again")


# --- the header ------------------------------------------------------------------------------------------


def _read_header(reading: Reading, source: Source, data: bytes | memoryview) -> tuple[dict[str, Json], int]:
    """The magic number, protocol and system facts; and where the tree's pickle starts, 0 if they cannot be read."""
    values = []
    at = 0
    for what in ("magic number", "protocol version", "system information"):
        outcome = Machine(data, at, limits=reading.limits).run()
        note_globals(reading, outcome.names, what)
        for problem in outcome.problems:
            reading.report("header-malformed", what, problem.message, offset=problem.offset)
        if outcome.cut:
            _report_cut(reading, source)
        if not outcome.complete:
            return {}, 0
        values.append(outcome.root)
        at = outcome.end
    magic, protocol, system = values
    if type(magic) is not int or magic != MAGIC:
        reading.report("header-malformed", "byte 0", "the magic number is not torch's")
    if type(protocol) is not int or protocol != PROTOCOL:
        reading.report("header-malformed", "byte 15", f"protocol version {_text(protocol)}, and torch reads {PROTOCOL}")
    return _system_facts(reading, system), at


def _system_facts(reading: Reading, system: object) -> dict[str, Json]:
    facts: dict[str, Json] = {"crc_recorded": False}
    if type(system) is not DictOf:
        reading.report("header-malformed", "system information", "not a dict")
        return facts
    pairs = dict(zip((str(k) for k in system.flat[::2]), system.flat[1::2], strict=False))
    little = pairs.get("little_endian")
    facts["little_endian"] = little if isinstance(little, bool) else None
    if not isinstance(little, bool):
        reading.report("header-malformed", "system information", "does not say whether it is little-endian")
    return facts


def _text(value: object) -> str:
    return str(value) if type(value) is int and abs(value) < 1 << 64 else f"of type {type(value).__name__}"


# --- the storages ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Table:
    """Progress over the storages behind the key list."""

    at: int
    whole: int = 0
    missing: int = 0
    swapped: bool = False


def _read_table(
    reading: Reading, source: Source, data: bytes | memoryview, tree: Tree, start: int, header: dict[str, Json]
) -> list[Extent]:
    outcome = Machine(data, tree.outcome.end, limits=reading.limits).run()
    note_globals(reading, outcome.names, "storage key list")
    keys = outcome.root.items if type(outcome.root) is ListOf else None
    if keys is None or any(type(k) not in (str, int) for k in keys):
        _report_cut_list(reading, source, cut=outcome.cut)
        return [Extent("tree", Span(source.name, start, tree.outcome.end))]
    extents = [Extent("tree", Span(source.name, start, outcome.end))]
    by_key = {s.key: i for i, s in enumerate(reading.storages)}
    table = _Table(outcome.end)
    known = [str(k) for k in keys]
    for number, key in enumerate(known):
        index = by_key.get(key)
        if index is None:
            reading.report(
                "storage-table", f"storage {number}", f"the key list names {key[:40]!r}, which no tensor uses"
            )
            break
        extents.extend(_place(reading, source, table, index))
    _judge_table(reading, source, table, known, by_key)
    if header.get("little_endian") is False and table.whole and not table.swapped:
        message = "says that the writer was big-endian, and the element counts are little-endian"
        reading.report("header-malformed", "system information", message)
    return extents


def _report_cut_list(reading: Reading, source: Source, *, cut: bool) -> None:
    if not cut:
        reading.report("storage-table", "storage key list", "is not a list of keys")
    else:
        reading.report(
            "truncated", f"byte {source.size}", "the file ends before its list of storages", "fetch the file again"
        )


def _place(reading: Reading, source: Source, table: _Table, index: int) -> list[Extent]:
    """Locate one storage: eight bytes of element count, then its bytes."""
    storage = reading.storages[index]
    head = source.read(table.at, 8)
    if len(head) < 8:
        table.missing += storage.nbytes + 8 - len(head)
        table.at = source.size
        return []
    said = int.from_bytes(head, "little", signed=True)
    numel = storage.nbytes // max(1, storage.dtype.itemsize)
    if said != numel:
        _wrong_count(reading, table, storage, head, said, numel)
    start = table.at + 8
    stop = start + storage.nbytes
    if stop > source.size:
        table.missing += stop - source.size
        stop = source.size
    else:
        table.whole += 1
    span = Span(source.name, start, stop)
    record = f"storage {storage.key}"
    wide = table.swapped and storage.dtype.bits > 8
    reading.storages[index] = replace(storage, span=span, record=record, swapped=wide)
    table.at = stop
    return [Extent(f"count of {record}", Span(source.name, start - 8, start)), Extent(record, span)]


def _wrong_count(reading: Reading, table: _Table, storage: Storage, head: bytes, said: int, numel: int) -> None:
    where = f"storage {storage.key}"
    if int.from_bytes(head, "big", signed=True) == numel:
        table.swapped = True
        reading.report(
            "byte-swapped-size",
            where,
            f"its element count {said} is {numel} in the other byte order",
            recorded=said,
            expected=numel,
        )
        return
    message = f"its element count is recorded as {said}, and its tensors need {numel}"
    reading.report("storage-table", where, message, recorded=said, expected=numel)


def _judge_table(reading: Reading, source: Source, table: _Table, keys: list[str], by_key: dict[str, int]) -> None:
    listed = set(keys)
    if len(listed) < len(keys):
        message = f"{len(keys) - len(listed)} storages stand twice in the key list"
        reading.report("storage-table", "storage key list", message)
    lacking = [key for key in by_key if key not in listed]
    if lacking:
        message = f"{len(lacking)} of {len(by_key)} storages are not in the key list: "
        message += "torch.load leaves their memory uninitialized"
        reading.report("storage-table", "storage key list", message, missing=len(lacking))
    if table.missing:
        message = f"the file ends {table.missing} bytes early: {table.whole} of {len(by_key)} storages are whole"
        hint = "fetch the file again, or use the checkpoint before this one"
        reading.report(
            "truncated",
            f"byte {source.size}",
            message,
            hint,
            missing_bytes=table.missing,
            whole_storages=table.whole,
            storages=len(by_key),
        )
    elif source.size > table.at and not lacking:
        extra = source.size - table.at
        reading.report("trailing-bytes", f"byte {table.at}", f"{extra} bytes follow the last storage", bytes=extra)
