"""torch's old format with a damaged header, tree or key list: what its layout and another checkpoint of the run tell.

The opening is the same in every file. The key list follows from the tree: it has the keys in their order as text.
Behind it each storage begins with its count of elements. Where the tree is lost, the keys still stand in it one after
the other, as the tree of another checkpoint of the run has them, or the list and the counts say what is where.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import SequenceMatcher

from ckpttool.formats import torch_legacy
from ckpttool.formats.patched import Patched
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.stack import ListOf
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Extent, Span, Storage
from ckpttool.source import Source
from ckpttool.units import plural

_LIST = b"\x80\x02]q\x00("
"""How the list of keys begins."""

_HEADERS = 4096
"""Bytes in which the pickles before the tree have to end."""


@dataclass(frozen=True, slots=True)
class Legacy:
    """A file of the old format that can be read again. ``tree`` is whose the names are; ``notes`` say what was done."""

    checkpoint: Checkpoint
    notes: tuple[str, ...]
    tree: str = "own"
    lost: tuple[str, ...] = ()


def read_again(source: Source, limits: Limits, like: Checkpoint | None) -> Legacy | None:
    """The file, its header or key list put right; else with the donor's tree; None where nothing helps."""
    fixed, notes = _with_opening(source)
    found = torch_legacy.read(fixed, limits)
    if notes and _is_placed(found):
        return Legacy(found, notes)
    if found.root is not None and found.storages:
        listed = _with_list(fixed, found, limits)
        if listed is not None:
            return Legacy(listed, (*notes, "the list of storages follows from the tree: it is put right"))
    whole = found.root is not None and _is_placed(found)
    return None if whole or like is None else _adopted(source, limits, like)


def _is_placed(found: Checkpoint) -> bool:
    return any(storage.span is not None for storage in found.storages)


# --- the opening ----------------------------------------------------------------------------------------------


def _with_opening(source: Source) -> tuple[Source, tuple[str, ...]]:
    """The magic number and the protocol are the same in every file: put right where most of them is left."""
    want = torch_legacy.OPENING + SYSTEM
    have = source.read(0, len(want))
    if len(have) < len(want):
        return source, ()
    if not _ends_system(source):
        changed = {at: value for at, value in enumerate(want) if have[at] != value}
    else:
        opening = torch_legacy.OPENING
        changed = {at: value for at, value in enumerate(opening) if have[at] != value}
    if not changed or len(changed) * 2 > len(want):
        return source, ()
    note = f"{plural(len(changed), 'byte')} of the file's opening, the same in every such file, put right"
    return Patched(source, changed), (note,)


def _ends_system(source: Source) -> bool:
    """Whether the third pickle, the facts about the system, can be read."""
    start = len(torch_legacy.OPENING)
    return Machine(source.read(0, _HEADERS), start).run().complete


SYSTEM = pickle.dumps(
    {"protocol_version": torch_legacy.PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
    protocol=2,
)
"""The facts about the system as every little-endian machine writes them."""


# --- the list -------------------------------------------------------------------------------------------------


def _with_list(source: Source, found: Checkpoint, limits: Limits) -> Checkpoint | None:
    """The file with its key list written anew from the tree; None where that is not what is wrong with it."""
    if _is_placed(found):
        return None
    tree = next((e.span for e in found.extents if e.name == "tree"), None)
    keys = sorted(storage.key for storage in found.storages if storage.inline is None)
    text = pickle.dumps(keys, protocol=2)
    if tree is None or tree.stop + len(text) > source.size:
        return None
    again = torch_legacy.read(Patched(source, dict(enumerate(text, tree.stop))), limits)
    return again if _is_placed(again) and not any(d.rule == "storage-table" for d in again.damage) else None


# --- the tree -------------------------------------------------------------------------------------------------


def _adopted(source: Source, limits: Limits, like: Checkpoint) -> Legacy | None:
    """The donor's tree over this file's payloads."""
    listed = _listed(source, limits)
    if listed is None:
        return None
    keys, at = listed
    spans = dict(_payloads(source, keys, at, like))
    homes = _matched(source, at, spans, like)
    storages = tuple(
        replace(s, span=spans.get(homes.get(i, "")), record=f"storage {homes.get(i, s.key)}", swapped=False)
        if s.inline is None
        else s
        for i, s in enumerate(like.storages)
    )
    storages = tuple(replace(s, checksum=None) for s in storages)
    extents = [Extent("header", Span(source.name, 0, at))]
    extents += [Extent(s.record, s.span) for s in storages if s.span is not None]
    made = replace(
        like, source=source.name, format=torch_legacy.NAME, storages=storages, extents=tuple(extents), damage=(),
        files=(source.name,), nbytes=source.size, metadata={"crc_recorded": False}, kind="",
    )  # fmt: skip
    if not _is_placed(made):
        return None
    note = f"names, shapes and values that are no tensors (counters, rates) are those of {like.source}"
    order = "payloads are matched by the order of their keys and by size; no checksum proves which is which"
    return Legacy(made, (note, order), "donor")


def _listed(source: Source, limits: Limits) -> tuple[list[str], int] | None:
    """The keys of the storages as the list has them, and where it ends."""
    data = source.window(0, min(source.size, limits.pickle_bytes))
    text = bytes(data[: 64 << 20])
    at = -1
    while (at := text.find(_LIST, at + 1)) >= 0:
        outcome = Machine(data, at, limits=limits).run()
        if outcome.complete and type(outcome.root) is ListOf:
            keys = outcome.root.items
            if keys and all(type(key) is str for key in keys):
                return [str(key) for key in keys], outcome.end
    return None


def _payloads(source: Source, keys: list[str], at: int, like: Checkpoint) -> Iterator[tuple[str, Span]]:
    """Where the bytes of each key lie: counts of elements, and the types that storages of so many have."""
    widths: dict[int, list[int]] = {}
    for storage in like.storages:
        width = max(1, storage.dtype.itemsize)
        known = widths.setdefault(storage.nbytes // width, [])
        known += [width] if width not in known else []
    for place, key in enumerate(keys):
        count = int.from_bytes(source.read(at, 8), "little", signed=True)
        fits = [w for w in widths.get(count, ()) if _continues(source, at + 8 + count * w, widths, place, keys)]
        if len(fits) != 1:
            return
        stop = at + 8 + count * fits[0]
        if stop > source.size:
            return
        yield key, Span(source.name, at + 8, stop)
        at = stop


def _continues(source: Source, at: int, widths: Mapping[int, list[int]], place: int, keys: list[str]) -> bool:
    """Whether the next storage may begin here, or the file ends here behind the last one."""
    if place == len(keys) - 1:
        return at == source.size
    return at + 8 > source.size or int.from_bytes(source.read(at, 8), "little", signed=True) in widths


def _matched(source: Source, at: int, spans: Mapping[str, Span], like: Checkpoint) -> dict[int, str]:
    """Which key each of the donor's storages has here."""
    wanted = [(i, s) for i, s in enumerate(like.storages) if s.inline is None]
    if {s.key for _, s in wanted} == set(spans):
        return {i: s.key for i, s in wanted if spans[s.key].nbytes == s.nbytes}
    text = source.read(0, at)
    # The list at the end has all keys once more: the tree's own mention is the first one.
    first = {key: text.find(key.encode()) for key in spans}
    head = text.rfind(_LIST)
    here = sorted((key for key in spans if 0 <= first[key] < head), key=lambda key: first[key])
    found = dict(_in_order([s for _, s in wanted], here, spans))
    homes = {wanted[place][0]: key for place, key in found.items()}
    return {**homes, **_by_size(wanted, homes, spans)}


def _in_order(wanted: list[Storage], here: list[str], spans: Mapping[str, Span]) -> Iterator[tuple[int, str]]:
    """Both name their storages in the order of the tree; where some are missing here, sizes hold the places."""
    sizes, found = [s.nbytes for s in wanted], [spans[key].nbytes for key in here]
    if len(sizes) == len(found):
        yield from ((i, key) for i, key in enumerate(here) if sizes[i] == found[i])
        return
    # What was damaged is one run: before it the orders agree from the front, behind it from the end.
    front = next((i for i, (a, b) in enumerate(zip(sizes, found, strict=False)) if a != b), len(found))
    back = next((i for i, (a, b) in enumerate(zip(sizes[::-1], found[::-1], strict=False)) if a != b), len(found))
    if front + back < len(found):
        blocks = SequenceMatcher(None, sizes, found, autojunk=False).get_matching_blocks()
        yield from ((a + i, here[b + i]) for a, b, size in blocks for i in range(size))
        return
    extra = front + back - len(found)
    yield from ((i, here[i]) for i in range(front - extra))
    yield from ((len(sizes) - i, here[len(found) - i]) for i in range(1, back - extra + 1))


def _by_size(wanted: list[tuple[int, Storage]], homes: Mapping[int, str], spans: Mapping[str, Span]) -> dict[int, str]:
    """What is left, where only one of a size is."""
    taken = set(homes.values())
    left = [(i, s) for i, s in wanted if i not in homes]
    free = [key for key in spans if key not in taken]
    found = {}
    for i, storage in left:
        same = [key for key in free if spans[key].nbytes == storage.nbytes]
        if len(same) == 1 and sum(s.nbytes == storage.nbytes for _, s in left) == 1:
            found[i] = same[0]
    return found
