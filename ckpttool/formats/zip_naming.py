"""Which record each place in a damaged archive is: by its header, its place, its checksum, or by what it has to be."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_finds import HEAD, IDENTITY, NOTES, TREE, Finds
from ckpttool.formats.zip_layout import header_length
from ckpttool.formats.zip_placing import Placed, Places


def name_places(finds: Finds, places: Places) -> None:
    """Give every place its name: that of its header where such a record is known, else by what fits."""
    _rename_entries(finds, places)
    known = set(finds.listed) or None
    strangers: list[Placed] = []
    for one in places.placed:
        usable = one.name and (known is None or one.name in known or finds.is_expected(one.name))
        # Of a directory that is there in part only, a record that proves its own place may be one of the rest.
        usable = usable or (finds.partial and one.name and one.ended and one.header >= 0)
        if usable and one.name not in finds.placed:
            finds.placed[one.name] = one
        elif usable and _likely(finds, one) > _likely(finds, finds.placed[one.name]):
            strangers.append(finds.placed[one.name])
            finds.placed[one.name] = one
        else:
            strangers.append(one)
    directory = _Directory(finds.listed.values())
    finds.strangers = [one for one in strangers if not directory.claims(finds, one) and not _is_note(finds, one)]
    for name, one in finds.placed.items():
        listed = finds.listed.get(name)
        if listed is not None and listed.usize == one.size and listed.crc and listed.crc not in one.crcs:
            one.crcs.append(listed.crc)


def _likely(finds: Finds, one: Placed) -> tuple[bool, ...]:
    """How much speaks for a record's being the one that its name says."""
    entry = finds.listed.get(one.name)
    size = finds.wanted().get(finds.short(one.name).removeprefix("data/"))
    listed = entry is not None and (entry.header == one.header or entry.crc in one.crcs)
    sizes = (size, None if entry is None else entry.csize)
    return one.size in sizes, listed, one.ended, not one.torn


def _is_note(finds: Finds, one: Placed) -> bool:
    """Whether a record without a usable name is one of torch's notes, which always say the same."""
    for name, content in NOTES.items():
        same = one.size == len(content) and zlib.crc32(content) in one.crcs
        if same and finds.prefix is not None and finds.prefix + name not in finds.placed:
            finds.placed[finds.prefix + name] = one
            return True
    return False


class _Directory:
    """The directory by where payloads begin, and by checksum and size where only one has both."""

    def __init__(self, listed: Iterable[Record]) -> None:
        self._by_data: dict[int, Record] = {}
        self._by_crc: dict[tuple[int, int], Record | None] = {}
        for entry in listed:
            start = entry.header + header_length(entry, 64)
            self._by_data.setdefault(entry.data if entry.data > 0 else start, entry)
            twins = (entry.crc, entry.csize) in self._by_crc
            self._by_crc[entry.crc, entry.csize] = None if twins or not entry.crc else entry

    def claims(self, finds: Finds, one: Placed) -> bool:
        """Whether the directory says what a record without a usable name is: by its place or by its checksum."""
        crcs = [self._by_crc.get((crc, one.size)) for crc in one.crcs]
        for entry in (self._by_data.get(one.data), *crcs):
            if entry is not None and entry.name not in finds.placed and entry.csize == one.size:
                finds.placed[entry.name] = one
                return True
        return False


def _rename_entries(finds: Finds, places: Places) -> None:
    """Directory entries whose names are damaged get those of the headers that they point to, or go."""
    at = {one.header: one.name for one in places.placed if one.header >= 0 and finds.is_expected(one.name)}
    for name, entry in list(finds.listed.items()):
        better = at.get(entry.header)
        if better is not None and better not in finds.listed:
            del finds.listed[name]
            finds.listed[better] = entry._replace(name=better)
        elif not name.startswith(finds.home):
            del finds.listed[name]


def order_of(finds: Finds) -> tuple[str, ...]:
    """The names that the archive should hold, in the order of writing: listed, found, needed by the tree."""
    home = finds.home
    needed = [f"{home}data/{key}" for key in finds.wanted()]
    found = sorted(finds.placed, key=lambda name: finds.placed[name].data)
    if finds.listed and all(name in finds.listed for name in needed):
        # torch lists records in the order in which it writes them.
        starts = {name: record.header for name, record in finds.listed.items()}
        starts.update((name, one.data) for name, one in finds.placed.items())
        return tuple(sorted({*finds.listed, *found}, key=starts.__getitem__))
    head = [home + name for name in (TREE, *HEAD)]
    recent = any(home + name in finds.placed for name in HEAD)
    heads = [name for name in head if name == home + TREE or name in finds.placed]
    if home + ".format_version" in finds.placed or home + ".storage_alignment" in finds.placed:
        heads = head
    tail = [home + "version", *([home + IDENTITY] if recent or home + IDENTITY in finds.placed else [])]
    others = [n for n in (*found, *finds.listed) if n not in {*head, *needed, *tail}]
    return tuple(dict.fromkeys([*heads, *needed, *_between(others, tail)]))


def _between(others: list[str], tail: list[str]) -> list[str]:
    """Records of other writers stand before the serialization id, which torch writes last."""
    return [tail[0], *others, *tail[1:]]
