"""What ``.metadata`` of a distributed checkpoint and its data files say of each other, and where they disagree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckpttool.boxes import fits, overlap, uncovered
from ckpttool.errors import printable
from ckpttool.formats.dcp_slices import Slices, label
from ckpttool.formats.dcp_table import METADATA, Entry, Key, Place, Table
from ckpttool.formats.folders import Folder
from ckpttool.model import Damage, Json, Tensor
from ckpttool.units import plural, size

MOST = 20
"""Findings of one rule that are listed."""

Found = Iterator[Damage]


def judge(folder: Folder, table: Table, slices: Slices) -> Found:
    """Everything that both together show; pure but for the folder's names."""
    yield from _capped(_geometry(table.entries))
    yield from _capped(_shared(slices))
    yield from _missing(table, slices)
    yield from _capped(_disagreements(table, slices))
    yield from _unlisted(folder, table, slices)


# --- boxes -----------------------------------------------------------------------------------------------


def _geometry(entries: Iterable[Entry]) -> Found:
    for entry in entries:
        if entry.dtype is None:
            continue
        wrong = next((box for box in entry.boxes if not fits(box, entry.shape)), None)
        if wrong is not None:
            message = (
                f"a chunk of shape {_text(wrong.shape)} at {_text(wrong.start)} lies outside of {_text(entry.shape)}"
            )
            yield Damage("chunk-mismatch", _shown(entry.name), message)
            continue
        twice = overlap(entry.boxes)
        if twice is not None:
            a, b = twice
            message = (
                f"the chunks of shape {_text(a.shape)} at {_text(a.start)} and {_text(b.shape)} at "
                f"{_text(b.start)} hold the same elements"
            )
            hint = "which of the two a loader keeps depends on the order in which it reads"
            yield Damage("chunk-overlap", _shown(entry.name), message, {"chunks": len(entry.boxes)}, hint)
            continue
        lacks = uncovered(entry.boxes, entry.shape)
        if lacks:
            whole = plural(lacks + sum(box.numel for box in entry.boxes), "element")
            message = f"{plural(lacks, 'element')} of {whole} are in none of its {plural(len(entry.boxes), 'chunk')}"
            hint = "a loader leaves them at whatever the memory held: take the checkpoint before this one"
            yield Damage("chunk-hole", _shown(entry.name), message, {"elements": lacks}, hint)


def _shared(slices: Slices) -> Found:
    for first, second in slices.shared:
        place = slices.places[second]
        message = f"its bytes are also those of {_said(first)}; they are read for that alone"
        yield Damage("chunk-overlap", label(place), f"{_said(second)}: {message}", {"file": place.file})


# --- what is not there -----------------------------------------------------------------------------------


def _missing(table: Table, slices: Slices) -> Found:
    """One finding for each file that lacks something, and one for what has no place at all."""
    nowhere: list[Key] = []
    lost: dict[str, list[Key]] = {}
    short: dict[str, list[tuple[Key, Place]]] = {}
    for key in _wanted(table):
        place = table.places.get(key)
        if place is None:
            nowhere.append(key)
        elif place.file not in slices.sizes:
            lost.setdefault(place.file, []).append(key)
        elif place.stop > slices.sizes[place.file]:
            short.setdefault(place.file, []).append((key, place))
    for name, keys in sorted(lost.items()):
        yield _lacking(printable(name), "the file is not here, or cannot be read", keys)
    for name, pairs in sorted(short.items()):
        ends = max(place.stop for _, place in pairs)
        why = f"the file ends at byte {slices.sizes[name]}, and {ends} bytes are needed"
        yield _lacking(printable(name), why, [key for key, _ in pairs])
    if nowhere:
        yield _lacking(METADATA, "no file is recorded for what it lists", nowhere)


def _wanted(table: Table) -> Iterator[Key]:
    for entry in table.entries:
        if entry.dtype is None:
            yield entry.name, None
        yield from ((entry.name, box.start) for box in entry.boxes if box.numel)


def _lacking(where: str, why: str, keys: Sequence[Key]) -> Damage:
    first = ", ".join(_said(key) for key in keys[:3]) + (", …" if len(keys) > 3 else "")
    message = f"{why}: {plural(len(keys), 'chunk')} missing ({first})"
    facts: dict[str, Json] = {"chunks": len(keys), "first": [_said(key) for key in keys[:20]]}
    return Damage("chunk-missing", where, message, facts, "fetch this file again, with the same save's others")


# --- what is there and is something else -----------------------------------------------------------------


def _disagreements(table: Table, slices: Slices) -> Found:
    for entry in table.entries:
        for box in entry.boxes if entry.dtype is not None else ():
            index = slices.root(entry.name, box.start)
            if index is None:
                continue
            node = slices.merged.nodes[index]
            have = f"{node.dtype.name} {_text(node.shape)}" if isinstance(node, Tensor) else "no tensor"
            sound = isinstance(node, Tensor) and node.dense and node.storage is not None
            wants = f"{entry.dtype.name} {_text(box.shape)}" if entry.dtype is not None else ""
            if have != wants or not sound:
                place = slices.places[entry.name, box.start]
                message = f"{_said((entry.name, box.start))} should be {wants}, and {have} is stored"
                hint = "torch copies such a chunk with a silent conversion, or stops: do not resume from it"
                yield Damage("chunk-mismatch", label(place), message, {}, hint)


# --- what nothing lists ----------------------------------------------------------------------------------


def _unlisted(folder: Folder, table: Table, slices: Slices) -> Found:
    listed = {place.file for place in table.places.values()}
    for name in folder.files:
        if name.endswith(".distcp") and name not in listed:
            message = "no entry of .metadata refers to this file"
            yield Damage("unlisted-data", printable(name), message, {"file": name}, _LEFT)
    for name, nbytes in slices.sizes.items():
        spare = nbytes - _covered([place for place in table.places.values() if place.file == name], nbytes)
        if spare:
            message = f"{size(spare)} of {size(nbytes)} belong to no entry of .metadata"
            yield Damage("unlisted-data", printable(name), message, {"bytes": spare, "size": nbytes}, _LEFT)


_LEFT = "it may be left from another save into this folder; move it away if nobody misses it"


def _covered(places: Sequence[Place], nbytes: int) -> int:
    edge = total = 0
    for place in sorted(places, key=lambda one: one.start):
        start, stop = max(edge, place.start), min(place.stop, nbytes)
        total += max(0, stop - start)
        edge = max(edge, stop)
    return total


# --- words -----------------------------------------------------------------------------------------------


def _capped(found: Found) -> Found:
    """The first findings of each rule, and one that counts the others."""
    seen: dict[str, int] = {}
    for damage in found:
        seen[damage.rule] = seen.get(damage.rule, 0) + 1
        if seen[damage.rule] <= MOST:
            yield damage
    for rule, count in seen.items():
        if count > MOST:
            yield Damage(rule, "", f"{count} such places in all; the first {MOST} are listed", {"count": count})


def _shown(name: str) -> str:
    return printable(name)[:200]


def _said(key: Key) -> str:
    name, start = key
    return _shown(name) if not start else f"{_shown(name)} at {_text(start)}"


def _text(numbers: Sequence[int]) -> str:
    return f"[{', '.join(map(str, numbers[:8]))}{', …' if len(numbers) > 8 else ''}]"
