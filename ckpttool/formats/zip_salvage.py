"""Reading an archive of torch's that is damaged anywhere: every record that can be found, by any witness that is left.

A record's place follows from its header, its descriptor, its directory entry, or the record before it; its size from
the tree, its descriptor or the directory; its checksum stands twice. ``torch.save`` lays its archives out in one way
only, so what is lost of the framing is computed. Raises nothing for what a file holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field

from ckpttool.formats.pickled import Reading
from ckpttool.formats.torch_zip import described
from ckpttool.formats.zip_adopted import adopted
from ckpttool.formats.zip_anchors import is_name
from ckpttool.formats.zip_archive import Record, read_directory, read_entries
from ckpttool.formats.zip_contents import Archive
from ckpttool.formats.zip_finds import TREE, Finds
from ckpttool.formats.zip_layout import WITH_DESCRIPTOR, descriptor_length, header_length
from ckpttool.formats.zip_naming import name_places, order_of
from ckpttool.formats.zip_placing import Placed, place
from ckpttool.formats.zip_seeking import find_tree, seek
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint
from ckpttool.source import Source

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
    finds = Finds(source, limits, like, own_tree)
    directory = read_directory(source, limits)
    finds.enter(() if directory is None else directory.records)
    finds.prefix = finds.prefix or _opening_prefix(source)
    places = place(source, finds.sizes_of, finds.prefix, limits)
    if not places.placed and not finds.listed:
        return None
    if places.directory >= 0 and not finds.listed:
        entries, _ = read_entries(source.window(places.directory, source.size), places.directory, limits)
        finds.enter(entries)
    finds.partial = directory is None
    name_places(finds, places)
    find_tree(finds)
    order = order_of(finds)
    seek(finds, order, places)
    _hear(finds)
    return _salvaged(finds, order)


def _opening_prefix(source: Source) -> str | None:
    """The top folder as the first header has it, whose signature may be gone."""
    head = source.read(30, 4096)
    at = head.find(f"/{TREE}FB".encode())
    name = head[:at].decode("utf-8", "surrogateescape") if 0 < at < 1024 else ""
    return name + "/" if name and is_name(name + "/", None) else None


def _hear(finds: Finds) -> None:
    """Where the copies of a checksum disagree, the payload decides; the copy that it agrees with comes first."""
    for one in finds.placed.values():
        one.crcs = list(dict.fromkeys(one.crcs))
        # It may be the beginning that is wrong: a header that lies about its length.
        start = one.data + one.torn
        if one.torn and one.ended and start > 0 and crc_of(finds.source, start, one.size) in one.crcs:
            one.data, one.torn = start, 0
        if len(one.crcs) > 1 and one.data + one.kept <= finds.source.size and not one.method:
            have = crc_of(finds.source, one.data, one.size)
            if have in one.crcs:
                one.crcs.remove(have)
                one.crcs.insert(0, have)


def _salvaged(finds: Finds, order: tuple[str, ...]) -> Salvaged:
    full = [_record(finds, name, finds.placed[name]) for name in order if name in finds.placed]
    size = finds.source.size
    clipped = tuple(
        r if r.stop <= size else r._replace(csize=max(0, size - r.data), usize=max(0, size - r.data), crc=0)
        for r in full
    )
    reading = Reading(finds.source.name, finds.limits)
    archive = Archive(finds.source, clipped, finds.home, True, 64, None)
    checkpoint = described(reading, archive)
    tree = "own" if checkpoint.root is not None and finds.own_tree else "none"
    if finds.like is not None and tree == "none":
        checkpoint, tree = adopted(finds.like, checkpoint, finds.home), "donor"
    return Salvaged(
        checkpoint,
        tuple(full),
        tuple(name for name in order if name not in finds.placed),
        {r.name: finds.placed[r.name].torn for r in full if finds.placed[r.name].torn},
        {r.name: tuple(finds.placed[r.name].crcs) for r in full},
        finds.home.rstrip("/"),
        tree,
        _alignment(finds, order),
        order,
    )


def _record(finds: Finds, name: str, one: Placed) -> Record:
    if one.size < 0:  # nobody says how long it is: longer than the file
        one.size = max(0, finds.source.size - one.data) + 1
    crc = one.crcs[0] if one.crcs else 0
    raw = name.encode("utf-8", "surrogateescape")
    return Record(name, raw, one.header, one.data, one.kept, one.size, crc, one.method, WITH_DESCRIPTOR)


def _alignment(finds: Finds, order: tuple[str, ...]) -> int:
    """The alignment by which most records lie as far apart as torch puts them; 0 if there is none."""
    sizes = [finds.size(name) for name in order]
    if not order or None in sizes or any(one.method for one in finds.placed.values()):
        return 0
    for alignment in _alignments(finds):
        shift, fitting, found = 0, 0, 0
        for name, data in zip(order, laid_out(order, [size or 0 for size in sizes], alignment), strict=True):
            one = finds.placed.get(name)
            if one is not None:
                found += 1
                fitting += one.data - data == shift
                shift = one.data - data
        if 2 * fitting >= found > 0:
            return alignment
    return 0


def _alignments(finds: Finds) -> tuple[int, ...]:
    noted = finds.placed.get(finds.home + ".storage_alignment")
    text = finds.source.read(noted.data, 8)[: noted.size] if noted is not None and 0 < noted.size <= 8 else b""
    said = (int(text),) if text.isdigit() and 0 < int(text) <= 1 << 15 else ()
    return tuple(dict.fromkeys((*said, 64, 4096)))


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
