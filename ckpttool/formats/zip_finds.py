"""What is known of a damaged archive while it is salvaged, and what those of torch hold beside their tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.torch_values import TorchValues
from ckpttool.formats.zip_anchors import is_name
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_placing import Placed
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint
from ckpttool.source import Source

TREE = "data.pkl"
NOTES = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little", "version": b"3\n"}
"""Records that hold the same in nearly every archive of torch's, and what."""

HEAD = (".format_version", ".storage_alignment", "byteorder")
"""Those that newer versions of torch write between the tree and the payloads."""

IDENTITY = ".data/serialization_id"
SMALL: dict[str, int] = {
    ".format_version": 1, ".storage_alignment": 2, "byteorder": 6, "version": 2, IDENTITY: 40,
}  # fmt: skip
"""Bytes of each."""


@dataclass(slots=True)
class Finds:
    """One archive on the way to being read again; private to the modules that salvage it.

    ``listed`` is the directory by name, as far as there is one. ``sizes`` are those that the tree gives to storages,
    by key, ``given`` those of the donor. ``placed`` are records by name, ``strangers`` those without one.
    ``partial`` says that the directory is not there to its end.
    ``own_tree`` says whether the archive's own tree is believed, ``whole_tree`` whether it could be read to its end.
    """

    source: Source
    limits: Limits
    like: Checkpoint | None
    own_tree: bool
    listed: dict[str, Record] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    whole_tree: bool = False
    partial: bool = False
    prefix: str | None = None
    placed: dict[str, Placed] = field(default_factory=dict)
    strangers: list[Placed] = field(default_factory=list)
    given: dict[str, int] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The archive's top folder with its slash; empty where it is not known."""
        return self.prefix or ""

    def short(self, name: str) -> str:
        """A record's name without the folder."""
        return name.removeprefix(self.home)

    def wanted(self) -> dict[str, int]:
        """Keys and sizes of the storages that the tree needs; those of the donor where there is no tree."""
        if self.whole_tree or self.like is None:
            return self.sizes
        self.given = self.given or {one.key: one.nbytes for one in self.like.storages if one.inline is None}
        return self.given

    def is_expected(self, name: str) -> bool:
        """Whether an archive with this tree holds a record of this name."""
        short = self.short(name)
        folded = short.lower() == TREE and self.home + TREE not in self.listed
        return short in SMALL or short == TREE or folded or short.removeprefix("data/") in self.sizes

    def expected_size(self, name: str) -> int | None:
        """Bytes that a record has by its name: as the tree says, or as torch's notes have."""
        short = self.short(name)
        is_payload = short.startswith("data/")
        return self.wanted().get(short.removeprefix("data/")) if is_payload else SMALL.get(short)

    def size(self, name: str) -> int | None:
        """Bytes of a record, by what is in the file, the directory, or the tree."""
        one = self.placed.get(name)
        if one is not None and one.size >= 0:
            return one.size
        return self.listed[name].usize if name in self.listed else self.expected_size(name)

    def enter(self, records: Iterable[Record]) -> None:
        """Take over what a directory says; the folder that most names have is the archive's."""
        for record in records:
            if is_name(record.name, None):
                self.listed.setdefault(record.name, record)
        folders = [name.partition("/")[0] for name in self.listed if "/" in name]
        if folders and self.prefix is None:
            self.prefix = max(dict.fromkeys(folders), key=folders.count) + "/"

    def sizes_of(self, header: Record) -> tuple[int, ...]:
        """The sizes that the record of a header may have, the likeliest first. The tree is read where it begins."""
        name = header.name
        found: list[int] = []
        if self.prefix is None and "/" in name:
            self.prefix = name[: -len(TREE)] if name.endswith("/" + TREE) else name.partition("/")[0] + "/"
        short = self.short(name)
        entry = self.listed.get(name)
        if short.lower() == TREE:
            end = self.read_tree(header.data, entry)
            found += [end] if end is not None else []
        key = short.removeprefix("data/")
        if key != short and key in self.sizes:
            found.append(self.sizes[key])
        if entry is not None:
            found.append(entry.csize)
        return tuple(dict.fromkeys(found))

    def read_tree(self, data: int, entry: Record | None) -> int | None:
        """Where the tree's pickle ends; the sizes of the storages that it mentions are noted on the way."""
        stop = min(self.source.size, data + self.limits.pickle_bytes)
        if entry is not None and 0 < entry.csize <= self.limits.pickle_bytes:
            stop = min(stop, data + entry.csize)
        values = TorchValues()
        machine = Machine(
            self.source.window(data, stop), reducers=values.reducers, persistent=values.persistent, limits=self.limits
        )
        outcome = machine.run()
        if self.own_tree:
            self.sizes.update((s.key, s.nbytes) for s in values.storages if s.key not in self.sizes)
            self.whole_tree = self.whole_tree or outcome.complete
        return outcome.end if outcome.complete else None
