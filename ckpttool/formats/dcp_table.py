"""``.metadata`` of a distributed checkpoint: which tensors and values there are, and which bytes hold which box.

It is a bare pickle of data classes, which torch loads with ``pickle.load``. Here they are calls that are kept and
never made, and only their fields are looked at.

Source: torch 2.13 ``torch/distributed/checkpoint/metadata.py``, ``filesystem.py`` (``_StorageInfo``, ``read_data``),
``_nested_dict.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from typing import TypeAlias

from ckpttool.boxes import Box
from ckpttool.dtypes import DType, dtype_of
from ckpttool.errors import printable
from ckpttool.formats.pickled import Reading, Tree, read_pickle
from ckpttool.formats.stand_ins import DIMENSIONS
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Call, Checkpoint, Damage, Global, GlobalUse, Mapping, Node, Sequence
from ckpttool.source import Source
from ckpttool.tree import fields, items, key_text, plain
from ckpttool.units import plural

METADATA = ".metadata"
Path: TypeAlias = "tuple[str | int, ...]"
Key: TypeAlias = "tuple[str, tuple[int, ...] | None]"
"""A name and where a box begins; None for a value that is no tensor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the state dict under its flat name. ``dtype`` is None for a value that is no tensor."""

    name: str
    dtype: DType | None = None
    shape: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Which bytes of which file hold an item. ``transforms`` names what they went through, such as compression."""

    file: str
    start: int
    nbytes: int
    transforms: tuple[str, ...] = ()

    @property
    def stop(self) -> int:
        return self.start + self.nbytes


@dataclass(frozen=True, slots=True)
class Table:
    """What ``.metadata`` says. ``paths`` lead from flat names to places in the nested state dict."""

    entries: tuple[Entry, ...] = ()
    places: dict[Key, Place] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    globals: tuple[GlobalUse, ...] = ()
    damage: tuple[Damage, ...] = ()
    nbytes: int = 0
    usable: bool = True


def read_table(source: Source, limits: Limits, where: str = METADATA) -> Table:
    """Read the pickle; total. What cannot be used is left out and reported."""
    reading = Reading(source.name, limits)
    size = min(source.size, limits.pickle_bytes)
    tree = read_pickle(reading, source.window(0, size), where)
    # That torch.load's allow-list is not asked here is torch's business: it unpickles this file.
    damage = [one for one in reading.damage if one.rule != "foreign-opcode"]
    if tree.outcome.complete and tree.outcome.end < source.size:
        left = source.size - tree.outcome.end
        damage.append(Damage("trailing-bytes", where, f"{left} bytes follow the pickle", {"bytes": left}))
    made = _Reader(Checkpoint(source.name, "pickle", reading.nodes, tree.root), where).table(tree)
    found = (*damage, *made.damage)
    return replace(made, globals=tuple(reading.globals), damage=found, nbytes=source.size)


def joined(tables: Iterable[Table]) -> Table:
    """The tables that ranks wrote each for itself, as one: boxes of one name together."""
    entries: dict[str, Entry] = {}
    found = Table()
    for table in tables:
        for entry in table.entries:
            known = entries.get(entry.name)
            boxes = tuple(dict.fromkeys((*(known.boxes if known else ()), *entry.boxes)))
            entries[entry.name] = replace(known or entry, boxes=boxes)
        found = Table(
            tuple(entries.values()),
            {**table.places, **found.places},
            {**table.paths, **found.paths},
            (*found.globals, *table.globals),
            (*found.damage, *table.damage),
            found.nbytes + table.nbytes,
            found.usable and table.usable,
        )
    return found


def in_order(table: Table) -> list[Entry]:
    """The entries as the state dict had them: each rank records all paths, and its own part of the entries first."""
    places = {name: place for place, name in enumerate(table.paths)}
    return sorted(table.entries, key=lambda entry: places.get(entry.name, len(places)))


class _Reader:
    """The fields of one metadata pickle, read from its frozen tree."""

    def __init__(self, checkpoint: Checkpoint, where: str) -> None:
        self.checkpoint = checkpoint
        self.where = where
        self.damage: list[Damage] = []
        self.nodes: tuple[Node, ...] = checkpoint.nodes

    def table(self, tree: Tree) -> Table:
        root = fields(self.checkpoint, tree.root)
        state = self._mapping(root.get("state_dict_metadata"))
        storage = self._mapping(root.get("storage_data"))
        if tree.root is not None and (state is None or storage is None):
            lacks = [n for n in ("state_dict_metadata", "storage_data") if self._mapping(root.get(n)) is None]
            self._report(f"it has no {' and no '.join(lacks)}")
        entries = tuple(self._entries(state)) if state else ()
        places = dict(self._places(storage)) if storage else {}
        paths = dict(self._paths(root.get("planner_data")))
        return Table(entries, places, paths, (), tuple(self.damage), 0, state is not None)

    def _mapping(self, index: int | None) -> Mapping | None:
        node = None if index is None else self.nodes[index]
        return node if isinstance(node, Mapping) else None

    def _report(self, message: str, **facts: int | str) -> None:
        if len(self.damage) < 20:
            self.damage.append(Damage("index-malformed", self.where, message, facts))

    # --- state_dict_metadata -----------------------------------------------------------------------------

    def _entries(self, state: Mapping) -> Iterator[Entry]:
        seen: set[str] = set()
        for key, value in zip(state.keys, state.values, strict=True):
            name = key_text(self.nodes[key])
            entry = self._entry(name, value)
            if entry is None or name in seen:
                why = "stands twice" if name in seen else "is neither a tensor's nor a value's"
                self._report(f"the entry {printable(name)[:200]!r} {why}", key=name[:200])
                continue
            seen.add(name)
            yield entry

    def _entry(self, name: str, index: int) -> Entry | None:
        node = self.nodes[index]
        if not isinstance(node, Call):
            return None
        if node.name == "BytesStorageMetadata":
            return Entry(name)
        known = fields(self.checkpoint, index)
        dtype, shape = self._dtype(known.get("properties")), self._sizes(known.get("size"))
        if node.name != "TensorStorageMetadata" or dtype is None or shape is None:
            return None
        boxes = [self._box(chunk) for chunk in items(self.checkpoint, known.get("chunks"))]
        if any(box is None for box in boxes):
            self._report(f"a chunk of {printable(name)[:200]!r} has no offsets or no sizes", key=name[:200])
        return Entry(name, dtype, shape, tuple(box for box in boxes if box is not None))

    def _dtype(self, index: int | None) -> DType | None:
        """The element type among the properties: the first of their state, or the field of that name."""
        node = None if index is None else self.nodes[index]
        if not isinstance(node, Call) or node.state is None:
            return None
        listed = items(self.checkpoint, node.state)
        found = listed[0] if listed else fields(self.checkpoint, index).get("dtype")
        named = None if found is None else self.nodes[found]
        return dtype_of(named.name) if isinstance(named, Global) and named.module == "torch" else None

    def _box(self, index: int) -> Box | None:
        known = fields(self.checkpoint, index)
        start, shape = self._sizes(known.get("offsets")), self._sizes(known.get("sizes"))
        return None if start is None or shape is None or len(start) != len(shape) else Box(start, shape)

    def _sizes(self, index: int | None) -> tuple[int, ...] | None:
        """``torch.Size((2, 3))``, or a plain tuple or list of integers."""
        node = None if index is None else self.nodes[index]
        if isinstance(node, Call) and node.name == "Size" and len(node.args) == 1:
            index = node.args[0]
            node = self.nodes[index]
        if not isinstance(node, Sequence) or len(node.items) > DIMENSIONS:
            return None
        found = [plain(self.checkpoint, i) for i in node.items]
        return tuple(x for x in found if type(x) is int) if all(type(x) is int for x in found) else None

    # --- storage_data ------------------------------------------------------------------------------------

    def _places(self, storage: Mapping) -> Iterator[tuple[Key, Place]]:
        wrong = 0
        for key, value in zip(storage.keys, storage.values, strict=True):
            known = fields(self.checkpoint, key)
            name, place = plain(self.checkpoint, known.get("fqn")), self._place(value)
            if not isinstance(name, str) or place is None:
                wrong += 1
                continue
            yield (name, self._sizes(known.get("offset"))), place
        if wrong:
            self._report(f"{plural(wrong, 'place')} without a name, a file or a range of bytes", places=wrong)

    def _place(self, index: int) -> Place | None:
        known = fields(self.checkpoint, index)
        file, start, nbytes = (plain(self.checkpoint, known.get(n)) for n in ("relative_path", "offset", "length"))
        if not isinstance(file, str) or type(start) is not int or type(nbytes) is not int:
            return None
        if start < 0 or nbytes < 0:
            return None
        listed = (plain(self.checkpoint, i) for i in items(self.checkpoint, known.get("transform_descriptors")))
        return Place(file, start, nbytes, tuple(str(x) for x in listed))

    # --- planner_data ------------------------------------------------------------------------------------

    def _paths(self, index: int | None) -> Iterator[tuple[str, Path]]:
        mapping = self._mapping(index)
        for key, value in zip(mapping.keys, mapping.values, strict=True) if mapping else ():
            steps = [plain(self.checkpoint, i) for i in items(self.checkpoint, value)]
            kept = tuple(x for x in steps if type(x) is str or (type(x) is int and x >= 0))
            if kept and len(kept) == len(steps):
                yield key_text(self.nodes[key]), kept
