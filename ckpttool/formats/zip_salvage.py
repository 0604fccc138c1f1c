"""Reading an archive of torch's that is damaged anywhere: every record that can be found, by any witness that is left.

A record's place follows from its header, its descriptor, its directory entry, or the record before it; its size from
the tree, its descriptor or the directory; its checksum stands twice. ``torch.save`` lays its archives out in one way
only, so what is lost of the framing is computed. Raises nothing for what a file holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from ckpttool.errors import printable
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.pickled import Reading
from ckpttool.formats.torch_values import TorchValues
from ckpttool.formats.torch_zip import NAME, described
from ckpttool.formats.zip_anchors import descriptor_at, is_name, named_headers
from ckpttool.formats.zip_archive import Record, read_directory, read_entries
from ckpttool.formats.zip_contents import Archive
from ckpttool.formats.zip_layout import WITH_DESCRIPTOR, descriptor_length, header_length
from ckpttool.formats.zip_placing import Placed, Places, gaps, place
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Checksum, Extent, Span, Storage
from ckpttool.source import Source

TREE = "data.pkl"
BLOCK = 1 << 20
"""Bytes that are in memory at a time while witnesses are heard."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What is left of an archive.

    ``records`` are those found, in the order of writing, with their full sizes even where the file ends inside them;
    ``missing`` the names of those that are not there at all. ``torn`` says how many bytes were put into a record
    (below 0: taken away). ``checksums`` are those recorded for a record, by name, each once. ``tree`` says whose tree
    it is: ``own``, ``donor`` or ``none``. ``aligned`` is the archive's alignment, 0 where it is not laid out as torch
    does. ``order`` has the names of all records that it should hold, as torch would have written them.
    """

    checkpoint: Checkpoint
    records: tuple[Record, ...]
    missing: tuple[str, ...]
    torn: Mapping[str, int] = field(default_factory=dict, hash=False)
    checksums: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    folder: str = ""
    tree: str = "own"
    aligned: int = 0
    order: tuple[str, ...] = ()


def salvage(
    source: Source, limits: Limits, like: Checkpoint | None = None, *, own_tree: bool = True
) -> Salvaged | None:
    """What can be found of an archive; None if nothing of one is there. ``like`` stands in for a lost tree.

    Without ``own_tree`` the archive's tree is not believed, even where it can be read.

    Cost: what an intact archive costs, one look at every byte where the framing is damaged, and one at the payloads
    whose witnesses disagree. Memory: the pickle and a few windows.
    """
    return _Salvage(source, limits, like, own_tree).run()


class _Salvage:
    """One archive on the way; private to this module."""

    def __init__(self, source: Source, limits: Limits, like: Checkpoint | None, own_tree: bool) -> None:
        self.own_tree = own_tree
        self.source, self.limits, self.like = source, limits, like
        self.listed: dict[str, Record] = {}
        self.sizes: dict[str, int] = {}
        self.whole_tree = False
        self.prefix: str | None = None
        self.placed: dict[str, Placed] = {}
        self.strangers: list[Placed] = []
        self.by_data: dict[int, Record] = {}
        self.by_crc: dict[tuple[int, int], Record | None] = {}

    def run(self) -> Salvaged | None:
        directory = read_directory(self.source, self.limits)
        self._enter(() if directory is None else directory.records)
        self.prefix = self.prefix or self._opening_prefix()
        places = place(self.source, self._sizes_of, self.prefix, self.limits)
        if not places.placed and not self.listed:
            return None
        if places.directory >= 0 and not self.listed:
            entries, _ = read_entries(
                self.source.window(places.directory, self.source.size), places.directory, self.limits
            )
            self._enter(entries)
        self._name(places)
        self._find_tree()
        order = self._order()
        self._seek(order, places)
        self._hear()
        return self._salvaged(order)

    # --- the directory -----------------------------------------------------------------------------------

    def _enter(self, records: Iterable[Record]) -> None:
        for record in records:
            if is_name(record.name, None):
                self.listed.setdefault(record.name, record)
        folders = [name.partition("/")[0] for name in self.listed if "/" in name]
        if folders and self.prefix is None:
            self.prefix = max(dict.fromkeys(folders), key=folders.count) + "/"

    def _opening_prefix(self) -> str | None:
        """The top folder as the first header has it, whose signature may be gone."""
        head = self.source.read(30, 4096)
        at = head.find(f"/{TREE}FB".encode())
        name = head[:at].decode("utf-8", "surrogateescape") if 0 < at < 1024 else ""
        return name + "/" if name and is_name(name + "/", None) else None

    # --- sizes -------------------------------------------------------------------------------------------

    def _sizes_of(self, header: Record) -> tuple[int, ...]:
        name = header.name
        found: list[int] = []
        if self.prefix is None and "/" in name:
            self.prefix = name[: -len(TREE)] if name.endswith("/" + TREE) else name.partition("/")[0] + "/"
        short = name.removeprefix(self.prefix or "")
        entry = self.listed.get(name)
        if short.lower() == TREE:
            end = self._read_tree(header.data, entry)
            found += [end] if end is not None else []
        key = short.removeprefix("data/")
        if key != short and key in self.sizes:
            found.append(self.sizes[key])
        if entry is not None:
            found.append(entry.csize)
        return tuple(dict.fromkeys(found))

    def _read_tree(self, data: int, entry: Record | None) -> int | None:
        """Where the tree's pickle ends; the sizes of the storages that it mentions are noted on the way."""
        stop = min(self.source.size, data + self.limits.pickle_bytes)
        if entry is not None and 0 < entry.csize <= self.limits.pickle_bytes:
            stop = min(stop, data + entry.csize)
        values = TorchValues()
        machine = Machine(
            self.source.window(data, stop),
            reducers=values.reducers,
            persistent=values.persistent,
            limits=self.limits,
        )
        outcome = machine.run()
        if self.own_tree:
            self.sizes.update((s.key, s.nbytes) for s in values.storages if s.key not in self.sizes)
            self.whole_tree = self.whole_tree or outcome.complete
        return outcome.end if outcome.complete else None

    # --- names -------------------------------------------------------------------------------------------

    def _name(self, places: Places) -> None:
        """Give every place its name: that of its header where such a record is known, else by what fits."""
        self._rename_entries(places)
        known = set(self.listed) or None
        strangers: list[Placed] = []
        for one in places.placed:
            usable = one.name and (known is None or one.name in known or self._is_expected(one.name))
            if usable and one.name not in self.placed:
                self.placed[one.name] = one
            elif usable and self._likely(one) > self._likely(self.placed[one.name]):
                strangers.append(self.placed[one.name])
                self.placed[one.name] = one
            else:
                strangers.append(one)
        self.strangers = [one for one in strangers if not self._claimed(one) and not self._is_note(one)]
        for name, one in self.placed.items():
            listed = self.listed.get(name)
            if listed is not None and listed.usize == one.size and listed.crc and listed.crc not in one.crcs:
                one.crcs.append(listed.crc)

    def _likely(self, one: Placed) -> tuple[bool, ...]:
        """How much speaks for a record's being the one that its name says."""
        entry = self.listed.get(one.name)
        size = self._wanted().get(one.name.removeprefix(self.prefix or "").removeprefix("data/"))
        listed = entry is not None and (entry.header == one.header or entry.crc in one.crcs)
        sizes = (size, None if entry is None else entry.csize)
        return one.size in sizes, listed, one.ended, not one.torn

    def _is_note(self, one: Placed) -> bool:
        """Whether a record without a usable name is one of torch's notes, which always say the same."""
        for name, content in NOTES.items():
            same = one.size == len(content) and zlib.crc32(content) in one.crcs
            if same and self.prefix is not None and self.prefix + name not in self.placed:
                self.placed[self.prefix + name] = one
                return True
        return False

    def _claimed(self, one: Placed) -> bool:
        """Whether the directory says what a record without a usable name is: by its place or by its checksum."""
        if not self.by_data:
            self._index()
        crcs = [self.by_crc.get((crc, one.size)) for crc in one.crcs]
        for entry in (self.by_data.get(one.data), *crcs):
            if entry is not None and entry.name not in self.placed and entry.csize == one.size:
                self.placed[entry.name] = one
                return True
        return False

    def _index(self) -> None:
        """The directory by where payloads begin, and by checksum and size where only one has both."""
        for entry in self.listed.values():
            start = entry.header + header_length(entry, 64)
            self.by_data.setdefault(entry.data if entry.data > 0 else start, entry)
            twins = (entry.crc, entry.csize) in self.by_crc
            self.by_crc[entry.crc, entry.csize] = None if twins or not entry.crc else entry

    def _rename_entries(self, places: Places) -> None:
        """Directory entries whose names are damaged get those of the headers that they point to, or go."""
        at = {
            one.header: one.name for one in places.placed if one.header >= 0 and self._is_expected(one.name)
        }
        for name, entry in list(self.listed.items()):
            better = at.get(entry.header)
            if better is not None and better not in self.listed:
                del self.listed[name]
                self.listed[better] = entry._replace(name=better)
            elif not name.startswith(self.prefix or ""):
                del self.listed[name]

    def _is_expected(self, name: str) -> bool:
        short = name.removeprefix(self.prefix or "")
        folded = short.lower() == TREE and (self.prefix or "") + TREE not in self.listed
        return short in _SMALL or short == TREE or folded or short.removeprefix("data/") in self.sizes

    def _find_tree(self) -> None:
        """Where the tree's own header is lost: it is the first record, or by its name, or not to be had."""
        if self.prefix is None or self.prefix + TREE in self.placed or self.whole_tree:
            return
        name = (self.prefix + TREE).encode()
        entry = self.listed.get(self.prefix + TREE)
        starts = [data for _, data in named_headers(self.source, 0, BLOCK, name)]
        canonical = Record(name.decode(), name, 0, 0, 1, 1, 0, 0, WITH_DESCRIPTOR)
        starts += [header_length(canonical, 64)]
        for data in starts:
            end = self._read_tree(data, entry)
            size = end if end is not None else entry.csize if entry is not None else -1
            stated = None if size < 0 else descriptor_at(self.source, data + size, size)
            if end is not None or stated is not None:
                one = Placed(
                    name.decode(), data, size, -1, [stated.crc] if stated else [], stated is not None
                )
                one.stop = data + size + 16
                self.placed[name.decode()] = one
                return

    def _order(self) -> tuple[str, ...]:
        """The names that the archive should hold, in the order of writing: listed, found, needed by the tree."""
        home = self.prefix or ""
        needed = [f"{home}data/{key}" for key in self._wanted()]
        found = sorted(self.placed, key=lambda name: self.placed[name].data)
        if self.listed and all(name in self.listed for name in needed):
            return tuple(sorted({*self.listed, *found}, key=self._start))
        head = [home + name for name in (TREE, *_HEAD)]
        recent = any(home + name in self.placed for name in _HEAD)
        heads = [name for name in head if name == home + TREE or name in self.placed]
        if home + ".format_version" in self.placed or home + ".storage_alignment" in self.placed:
            heads = head
        tail = [home + "version", *([home + _ID] if recent or home + _ID in self.placed else [])]
        others = [n for n in (*found, *self.listed) if n not in {*head, *needed, *tail}]
        return tuple(dict.fromkeys([*heads, *needed, *_between(others, tail)]))

    def _start(self, name: str) -> int:
        """Where a record begins: torch lists records in the order in which it writes them."""
        one = self.placed.get(name)
        return one.data if one is not None else self.listed[name].header

    def _wanted(self) -> dict[str, int]:
        """Keys and sizes of the storages that the tree needs; those of the donor where there is no tree."""
        if self.whole_tree or self.like is None:
            return self.sizes
        return {storage.key: storage.nbytes for storage in self.like.storages if storage.inline is None}

    # --- what has no header ------------------------------------------------------------------------------

    def _seek(self, order: tuple[str, ...], places: Places) -> None:
        """Place what is still missing: descriptors without headers, names without signatures, the layout itself."""
        wanted = self._wanted()
        open_ = list(gaps(places.placed, self.source.size))
        before: Placed | None = None
        for name in order:
            one = self.placed.get(name)
            if one is None:
                one = self._by_rest(name, wanted, before, open_)
                if one is not None:
                    self.placed[name] = one
            before = one or before

    def _by_rest(
        self, name: str, wanted: Mapping[str, int], before: Placed | None, open_: list[tuple[int, int]]
    ) -> Placed | None:
        entry = self.listed.get(name)
        short = name.removeprefix(self.prefix or "")
        size = wanted.get(short.removeprefix("data/")) if short.startswith("data/") else _SMALL.get(short)
        size = entry.csize if size is None and entry is not None else size
        if size is None:
            return None
        floor = before.stop if before is not None else 0
        for one in self.strangers:
            if (
                one.size == size
                and one.data >= floor
                and (not entry or not entry.crc or entry.crc in one.crcs)
            ):
                self.strangers.remove(one)
                return one
        return self._by_place(name, size, floor, entry, open_)

    def _by_place(
        self, name: str, size: int, floor: int, entry: Record | None, open_: list[tuple[int, int]]
    ) -> Placed | None:
        raw = name.encode("utf-8", "surrogateescape")
        starts = [
            data
            for start, stop in open_
            if stop > floor
            for _, data in named_headers(self.source, start, stop, raw)
        ]
        for header in dict.fromkeys((floor, *([entry.header] if entry is not None else []))):
            record = Record(name, raw, header, 0, size, size, 0, 0, WITH_DESCRIPTOR)
            starts.append(header + header_length(record, 64))
        best: Placed | None = None
        for data in dict.fromkeys(starts):
            if data >= self.source.size and size:
                continue
            stated = descriptor_at(self.source, data + size, size)
            crcs = ([stated.crc] if stated else []) + ([entry.crc] if entry is not None and entry.crc else [])
            one = Placed(name, data, size, -1, list(dict.fromkeys(crcs)), stated is not None)
            one.stop = stated.stop if stated else min(self.source.size, data + size + 16)
            if stated is not None:
                return one
            best = best if best is not None else one if self._is_free(data, size, open_) else None
        return best

    def _is_free(self, data: int, size: int, open_: list[tuple[int, int]]) -> bool:
        """Whether a payload may begin here; an empty one may anywhere, there is nothing to it."""
        return not size or any(start <= data < stop for start, stop in open_)

    # --- witnesses ---------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Where the copies of a checksum disagree, the payload decides; the copy that it agrees with comes first."""
        for one in self.placed.values():
            one.crcs = list(dict.fromkeys(one.crcs))
            # It may be the beginning that is wrong: a header that lies about its length.
            start = one.data + one.torn
            if one.torn and one.ended and start > 0 and crc_of(self.source, start, one.size) in one.crcs:
                one.data, one.torn = start, 0
            if len(one.crcs) > 1 and one.data + one.kept <= self.source.size and not one.method:
                have = crc_of(self.source, one.data, one.size)
                if have in one.crcs:
                    one.crcs.remove(have)
                    one.crcs.insert(0, have)

    # --- the result --------------------------------------------------------------------------------------

    def _salvaged(self, order: tuple[str, ...]) -> Salvaged:
        full = [self._record(name, self.placed[name]) for name in order if name in self.placed]
        size = self.source.size
        clipped = tuple(
            r
            if r.stop <= size
            else r._replace(csize=max(0, size - r.data), usize=max(0, size - r.data), crc=0)
            for r in full
        )
        reading = Reading(self.source.name, self.limits)
        archive = Archive(self.source, clipped, self.prefix or "", True, 64, None)
        checkpoint = described(reading, archive)
        tree = "own" if checkpoint.root is not None and self.own_tree else "none"
        if self.like is not None and tree == "none":
            checkpoint, tree = adopted(self.like, checkpoint, self.prefix or ""), "donor"
        return Salvaged(
            checkpoint,
            tuple(full),
            tuple(name for name in order if name not in self.placed),
            {r.name: self.placed[r.name].torn for r in full if self.placed[r.name].torn},
            {r.name: tuple(self.placed[r.name].crcs) for r in full},
            (self.prefix or "").rstrip("/"),
            tree,
            self._alignment(order),
            order,
        )

    def _record(self, name: str, one: Placed) -> Record:
        if one.size < 0:  # nobody says how long it is: longer than the file
            one.size = max(0, self.source.size - one.data) + 1
        crc = one.crcs[0] if one.crcs else 0
        raw = name.encode("utf-8", "surrogateescape")
        return Record(name, raw, one.header, one.data, one.kept, one.size, crc, one.method, WITH_DESCRIPTOR)

    def _alignment(self, order: tuple[str, ...]) -> int:
        """The alignment by which most records lie as far apart as torch puts them; 0 if there is none."""
        sizes = [self._size(name) for name in order]
        if not order or None in sizes or any(one.method for one in self.placed.values()):
            return 0
        for alignment in self._alignments():
            shift, fitting, found = 0, 0, 0
            for name, data in zip(
                order, laid_out(order, [size or 0 for size in sizes], alignment), strict=True
            ):
                one = self.placed.get(name)
                if one is not None:
                    found += 1
                    fitting += one.data - data == shift
                    shift = one.data - data
            if 2 * fitting >= found > 0:
                return alignment
        return 0

    def _size(self, name: str) -> int | None:
        one = self.placed.get(name)
        if one is not None and one.size >= 0:
            return one.size
        short = name.removeprefix(self.prefix or "")
        if name in self.listed:
            return self.listed[name].usize
        return (
            self._wanted().get(short.removeprefix("data/"))
            if short.startswith("data/")
            else _SMALL.get(short)
        )

    def _alignments(self) -> tuple[int, ...]:
        noted = self.placed.get((self.prefix or "") + ".storage_alignment")
        text = (
            self.source.read(noted.data, 8)[: noted.size]
            if noted is not None and 0 < noted.size <= 8
            else b""
        )
        said = (int(text),) if text.isdigit() and 0 < int(text) <= 1 << 15 else ()
        return tuple(dict.fromkeys((*said, 64, 4096)))


NOTES = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little", "version": b"3\n"}
"""Records that hold the same in nearly every archive of torch's, and what."""

_HEAD = (".format_version", ".storage_alignment", "byteorder")
_ID = ".data/serialization_id"
_SMALL: dict[str, int | None] = {
    ".format_version": 1, ".storage_alignment": 2, "byteorder": 6, "version": 2, _ID: 40,
}  # fmt: skip


def _between(others: list[str], tail: list[str]) -> list[str]:
    """Records of other writers stand before the serialization id, which torch writes last."""
    return [tail[0], *others, *tail[1:]]


def laid_out(names: Sequence[str], sizes: Sequence[int], alignment: int) -> list[int]:
    """Where torch puts the payloads of an archive with these records."""
    starts = []
    at = 0
    for name, size in zip(names, sizes, strict=True):
        raw = name.encode("utf-8", "surrogateescape")
        record = Record(name, raw, at, 0, size, size, 0, 0, WITH_DESCRIPTOR)
        starts.append(at + header_length(record, alignment))
        at = starts[-1] + size + descriptor_length(record)
    return starts


def crc_of(source: Source, start: int, nbytes: int, value: int = 0) -> int:
    """The CRC-32 of a range, block by block."""
    stop = min(start + nbytes, source.size)
    while start < stop:
        block = source.read(start, min(BLOCK, stop - start))
        if not block:
            break
        value = zlib.crc32(block, value)
        start += len(block)
    return value


# --- another checkpoint's tree --------------------------------------------------------------------------------


def adopted(donor: Checkpoint, found: Checkpoint, prefix: str) -> Checkpoint:
    """The donor's tree over the payloads of a file that has lost its own: storages matched by key and size."""
    extents = {extent.name: extent for extent in found.extents}
    storages = tuple(
        _taken(storage, extents.get(f"{prefix}data/{storage.key}"), prefix) for storage in donor.storages
    )
    return replace(
        found,
        format=NAME if donor.format not in ("torch-zip",) else donor.format,
        nodes=donor.nodes,
        root=donor.root,
        storages=storages,
        globals=donor.globals,
    )


def _taken(storage: Storage, extent: Extent | None, prefix: str) -> Storage:
    record = f"{prefix}data/{storage.key}"
    bare = replace(storage, span=None, checksum=None, record=record)
    if storage.inline is not None or extent is None:
        return storage if storage.inline is not None else bare
    whole = extent.span.nbytes if extent.size is None else extent.size
    fits = whole == storage.nbytes or (whole < storage.nbytes and extent.checksum is None)
    if not fits:
        return bare
    checksum: Checksum | None = extent.checksum
    return replace(
        bare, span=Span(extent.span.source, extent.span.start, extent.span.stop), checksum=checksum
    )


def describe_failure(found: Salvaged) -> str:
    """Why there is no tree, in words."""
    problems = [
        one.message for one in found.checkpoint.damage if one.rule in ("pickle-malformed", "over-limit")
    ]
    return (
        printable(problems[0]) if problems else "the record data.pkl, which names the tensors, is not there"
    )
