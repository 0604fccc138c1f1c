"""The tar layout of torch 0.1.10 and older: members ``storages``, ``tensors`` and ``pickle``.

``weights_only`` loading refuses it outright. Described as far as it goes: tensors, storages, what the pickle
names. Source: torch 2.13 ``torch/serialization.py`` ``_legacy_load.legacy_load``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ckpttool.dtypes import STORAGE_CLASSES, DType
from ckpttool.formats.arena import shape_of_tree
from ckpttool.formats.numpy_arrays import lift
from ckpttool.formats.pickle_machine import Machine, Outcome
from ckpttool.formats.pickle_terms import NOT_MINE
from ckpttool.formats.pickled import Reading, note_globals, scan_rest
from ckpttool.formats.stack import ListOf, Named
from ckpttool.formats.tar_members import Member, is_tar, members
from ckpttool.formats.torch_values import TorchValues
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Extent, Span, Storage, Tensor
from ckpttool.source import Source

NAME = "torch-tar"

NAMES = ("storages", "tensors", "pickle")
_i32 = struct.Struct("<i")
_i64 = struct.Struct("<q")


def sniff(source: Source) -> bool:
    """Whether this is a tar archive with torch's three members, or with the first two of them."""
    if not is_tar(source):
        return False
    found = {member.name.removeprefix("./") for member in members(source, 16)}
    return "pickle" in found and "storages" in found


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe the archive; total. Storages are located by reading their counts, tensors by their headers."""
    reading = Reading(source.name, limits)
    found = {member.name.removeprefix("./"): member for member in members(source, 16)}
    hint = "load it with a torch that still reads it, and save it again"
    reading.report("tar-layout", "", "a tar of torch 0.1.10 or older; torch.load(weights_only=True) refuses it", hint)
    for name in NAMES:
        if name not in found:
            reading.report("missing-record", name, f"the archive has no member {name!r}")
    table = _Table(reading, source)
    if "storages" in found:
        table.read_storages(found["storages"])
    if "tensors" in found:
        table.read_tensors(found["tensors"])
    root = _read_object(reading, source, found["pickle"], table) if "pickle" in found else None
    _judge_end(reading, source, list(found.values()))
    lifted = lift(reading.nodes, reading.storages, "pickle")
    return Checkpoint(
        source.name,
        NAME,
        lifted.nodes,
        root,
        lifted.storages,
        tuple(_extents(source, list(found.values()), table.extents)),
        tuple(reading.globals),
        (*reading.damage, *lifted.damage),
        (source.name,),
        source.size,
        {"crc_recorded": False},
    )


class _Table:
    """The storages and tensors of the archive by their numbers, as they are found."""

    def __init__(self, reading: Reading, source: Source) -> None:
        self.reading = reading
        self.source = source
        self.by_key: dict[Any, tuple[int, int]] = {}
        """Storage index and the element at which it starts there."""
        self.tensors: dict[str, Tensor] = {}
        self.extents: list[Extent] = []

    def read_storages(self, member: Member) -> None:
        """How many; of each a pickle ``(key, location, class)``, its element count and bytes; then views."""
        cursor = _Cursor(self.reading, self.source, member, "storages")
        for _ in range(cursor.count()):
            head = cursor.pickle()
            numel = cursor.number(_i64)
            dtype = _storage_dtype(head)
            if dtype is None or numel is None or not 0 <= numel < 1 << 48:
                cursor.stop("storage-table", "a storage's entry cannot be read")
                return
            nbytes = numel * dtype.itemsize
            start = cursor.at
            if start + nbytes > cursor.end:
                cursor.stop("truncated", f"a storage of {nbytes} bytes, and {max(cursor.end - start, 0)} are left")
                return
            self._add(head, dtype, Span(self.source.name, start, start + nbytes))
            cursor.at = start + nbytes
        self._read_views(cursor)

    def _add(self, head: Any, dtype: DType, span: Span) -> None:
        key, location = head[0], head[1]
        record = f"storage {key}"
        self.by_key[key] = (len(self.reading.storages), 0)
        device = location if type(location) is str else "cpu"
        self.reading.storages.append(Storage(str(key), dtype, span.nbytes, span, device=device, record=record))
        self.extents.append(Extent(record, span))

    def _read_views(self, cursor: _Cursor) -> None:
        """``[(key, root, offset, size), …]``: storages that are parts of others."""
        views = cursor.pickle()
        if type(views) is not ListOf:
            cursor.stop("storage-table", "the list of views that ends the member cannot be read")
            return
        for view in views.items:
            whole = type(view) is tuple and len(view) == 4 and all(type(x) is int for x in view)
            root = self.by_key.get(view[1]) if whole else None
            if root is None:
                cursor.stop("storage-table", "a view names a storage that is not here")
                return
            self.by_key[view[0]] = (root[0], root[1] + view[2])

    def read_tensors(self, member: Member) -> None:
        """How many; of each a pickle ``(key, storage, class)``, its rank, sizes, strides and offset."""
        cursor = _Cursor(self.reading, self.source, member, "tensors")
        for _ in range(cursor.count()):
            head = cursor.pickle()
            rank = cursor.number(_i32)
            if type(head) is not tuple or len(head) != 3 or rank is None or not 0 <= rank <= 64:
                cursor.stop("storage-table", "a tensor's entry cannot be read")
                return
            cursor.at += 4
            numbers = [cursor.number(_i64) for _ in range(2 * rank + 1)]
            place = self.by_key.get(head[1]) if type(head[1]) in (int, str) else None
            if None in numbers or type(head[0]) not in (int, str):
                cursor.stop("storage-table", "a tensor's entry cannot be read")
                return
            if place is None:
                cursor.stop("storage-missing", f"tensor {_text(head[0])} names a storage that is not here")
                continue
            whole = [number for number in numbers if number is not None]
            self._keep(str(head[0]), place, rank, whole)

    def _keep(self, key: str, place: tuple[int, int], rank: int, numbers: list[int]) -> None:
        index, first = place
        dtype = self.reading.storages[index].dtype
        shape, stride = tuple(numbers[:rank]), tuple(numbers[rank : 2 * rank])
        self.tensors[key] = Tensor(dtype, shape, stride, first + numbers[-1], index, form=NAME)

    def persistent(self, pid: Any) -> Any:
        """A tensor by its number, or a class of torch by its."""
        return self.tensors.get(str(pid), NOT_MINE) if type(pid) in (int, str) else NOT_MINE


class _Cursor:
    """A place in one member. After a problem it stays at the end, so that nothing further is read."""

    def __init__(self, reading: Reading, source: Source, member: Member, where: str) -> None:
        self.reading = reading
        self.source = source
        self.at = member.start
        self.end = min(member.stop, source.size)
        self.where = where

    def count(self) -> int:
        """A pickled number of entries; 0 where it makes no sense."""
        found = self.pickle()
        # Every entry takes at least 16 bytes.
        if type(found) is int and 0 <= found <= (self.end - self.at) // 16 + 1:
            return found
        self.stop("storage-table", "the number of entries cannot be read")
        return 0

    def pickle(self) -> Any:
        """The root of the small pickle that stands here; None where there is none."""
        data = self.source.read(self.at, min(4096, self.end - self.at))
        outcome = Machine(data, limits=self.reading.limits).run()
        _note(self.reading, outcome, self.where)
        self.at += outcome.end
        return outcome.root if outcome.complete else None

    def number(self, form: struct.Struct) -> int | None:
        data = self.source.read(self.at, min(form.size, max(self.end - self.at, 0)))
        self.at += form.size
        return None if len(data) < form.size else int(form.unpack(data)[0])

    def stop(self, rule: str, message: str) -> None:
        self.reading.report(rule, self.where, message, offset=self.at)


def _note(reading: Reading, outcome: Outcome, where: str) -> None:
    known = {(use.module, use.name) for use in reading.globals}
    fresh = {key: named for key, named in outcome.names.items() if key not in known}
    note_globals(reading, fresh, where)


def _read_object(reading: Reading, source: Source, member: Member, table: _Table) -> int | None:
    end = min(member.stop, source.size, member.start + reading.limits.pickle_bytes)
    data = source.window(member.start, end)
    persistent: Callable[[Any], Any] = table.persistent
    machine = Machine(data, reducers=TorchValues().reducers, persistent=persistent, limits=reading.limits)
    outcome = machine.run()
    for problem in outcome.problems:
        reading.report(problem.rule, f"pickle byte {problem.offset}", problem.message)
    note_globals(reading, outcome.names, "pickle")
    if not outcome.complete:
        return None
    scan_rest(reading, data, outcome.end, "pickle")
    root = reading.arena.add(outcome.root, source.name, member.start)
    for rule, message in shape_of_tree(reading.nodes, root, reading.limits):
        reading.report(rule, "pickle", message)
    return root


def _judge_end(reading: Reading, source: Source, found: list[Member]) -> None:
    needs = max((member.stop for member in found), default=0)
    if needs > source.size:
        message = f"the file ends {needs - source.size} bytes early, at byte {source.size}"
        hint = "fetch the file again"
        reading.report("truncated", f"byte {source.size}", message, hint, needs=needs, have=source.size)


def _extents(source: Source, found: list[Member], storages: list[Extent]) -> list[Extent]:
    """The members, and the storages inside of theirs."""
    extents = [
        Extent(m.name, Span(source.name, m.start, min(m.stop, source.size))) for m in found if m.start < source.size
    ]
    return [*extents, *storages]


def _storage_dtype(head: Any) -> DType | None:
    if type(head) is not tuple or len(head) != 3 or type(head[2]) is not Named or type(head[0]) not in (int, str):
        return None
    return STORAGE_CLASSES.get(head[2].name) if head[2].module in ("torch", "torch.cuda") else None


def _text(value: Any) -> str:
    return repr(value)[:40] if type(value) in (int, str) else f"<{type(value).__name__}>"
