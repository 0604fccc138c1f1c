"""Records without a header of their own: found by a descriptor, by their name, or where torch would have put them."""

from __future__ import annotations

from ckpttool.formats.zip_anchors import descriptor_at, named_headers
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_finds import TREE, Finds
from ckpttool.formats.zip_layout import WITH_DESCRIPTOR, header_length
from ckpttool.formats.zip_placing import Placed, Places, gaps

REACH = 1 << 20
"""Bytes from the start of the file in which the tree is looked for by its name."""


def find_tree(finds: Finds) -> None:
    """Where the tree's own header is lost: it is the first record, or by its name, or not to be had."""
    if finds.prefix is None or finds.prefix + TREE in finds.placed or finds.whole_tree:
        return
    name = (finds.prefix + TREE).encode()
    entry = finds.listed.get(finds.prefix + TREE)
    starts = [data for _, data in named_headers(finds.source, 0, REACH, name)]
    canonical = Record(name.decode(), name, 0, 0, 1, 1, 0, 0, WITH_DESCRIPTOR)
    starts += [header_length(canonical, 64)]
    for data in starts:
        end = finds.read_tree(data, entry)
        size = end if end is not None else entry.csize if entry is not None else -1
        stated = None if size < 0 else descriptor_at(finds.source, data + size, size)
        if end is not None or stated is not None:
            one = Placed(name.decode(), data, size, -1, [stated.crc] if stated else [], stated is not None)
            one.stop = data + size + 16
            finds.placed[name.decode()] = one
            return


def seek(finds: Finds, order: tuple[str, ...], places: Places) -> None:
    """Place what is still missing: descriptors without headers, names without signatures, the layout itself."""
    open_ = list(gaps(places.placed, finds.source.size))
    before: Placed | None = None
    for name in order:
        one = finds.placed.get(name)
        if one is None:
            one = _by_rest(finds, name, before, open_)
            if one is not None:
                finds.placed[name] = one
        before = one or before


def _by_rest(finds: Finds, name: str, before: Placed | None, open_: list[tuple[int, int]]) -> Placed | None:
    entry = finds.listed.get(name)
    size = finds.expected_size(name)
    size = entry.csize if size is None and entry is not None else size
    if size is None:
        return None
    floor = before.stop if before is not None else 0
    for one in finds.strangers:
        if one.size == size and one.data >= floor and (not entry or not entry.crc or entry.crc in one.crcs):
            finds.strangers.remove(one)
            return one
    return _by_place(finds, name, size, floor, entry, open_)


def _by_place(
    finds: Finds, name: str, size: int, floor: int, entry: Record | None, open_: list[tuple[int, int]]
) -> Placed | None:
    raw = name.encode("utf-8", "surrogateescape")
    starts = [
        data for start, stop in open_ if stop > floor for _, data in named_headers(finds.source, start, stop, raw)
    ]
    for header in dict.fromkeys((floor, *([entry.header] if entry is not None else []))):
        record = Record(name, raw, header, 0, size, size, 0, 0, WITH_DESCRIPTOR)
        starts.append(header + header_length(record, 64))
    best: Placed | None = None
    for data in dict.fromkeys(starts):
        if data >= finds.source.size and size:
            continue
        stated = descriptor_at(finds.source, data + size, size)
        crcs = ([stated.crc] if stated else []) + ([entry.crc] if entry is not None and entry.crc else [])
        one = Placed(name, data, size, -1, list(dict.fromkeys(crcs)), stated is not None)
        one.stop = stated.stop if stated else min(finds.source.size, data + size + 16)
        if stated is not None:
            return one
        best = best if best is not None else one if _is_free(data, size, open_) else None
    return best


def _is_free(data: int, size: int, open_: list[tuple[int, int]]) -> bool:
    """Whether a payload may begin here; an empty one may anywhere, there is nothing to it."""
    return not size or any(start <= data < stop for start, stop in open_)
