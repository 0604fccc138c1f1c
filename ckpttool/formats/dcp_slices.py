"""The archives inside the data files of a distributed checkpoint, each read once from where the table puts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ckpttool.errors import Unreadable, printable
from ckpttool.formats.dcp_table import Key, Place, Table
from ckpttool.formats.folders import Folder
from ckpttool.formats.merge import Merged, merge
from ckpttool.formats.natural import natural
from ckpttool.formats.sharded import is_plain
from ckpttool.formats.slice_templates import Templates
from ckpttool.formats.slices import Slice, lifted
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Damage, Json
from ckpttool.source import Source, open_source
from ckpttool.units import plural


class Describe(Protocol):
    """Describes an archive; ``audit`` says that every header is to be looked at."""

    @property
    def audit(self) -> bool: ...

    def __call__(self, one: str | Source, /) -> Checkpoint: ...


@dataclass(frozen=True, slots=True)
class Slices:
    """What was read of the data files. ``roots`` are nodes of ``merged`` by place; ``sizes`` the files' bytes.

    ``files`` are those that are there and mentioned. ``shared`` are pairs of names whose bytes overlap; the second
    of each was not read.
    """

    merged: Merged
    roots: dict[Place, int]
    places: dict[Key, Place]
    sizes: dict[str, int]
    files: tuple[str, ...]
    nbytes: int
    shared: tuple[tuple[Key, Key], ...]
    damage: tuple[Damage, ...]

    def root(self, name: str, start: tuple[int, ...] | None) -> int | None:
        """The node of what is stored under a name, for a tensor of the box that begins there."""
        place = self.places.get((name, start))
        return None if place is None else self.roots.get(place)


def label(place: Place) -> str:
    """How a slice is named in messages: its file and where it begins there."""
    return f"{printable(place.file)}@{place.start}"


def read_slices(folder: Folder, table: Table, describe_file: Describe) -> Slices:
    """Read every slice that lies where the table says; what cannot be read is missing and reported.

    Bytes that two different slices claim are read for the first alone, so the cost stays linear in the files.
    """
    by_file: dict[str, dict[Place, Key]] = {}
    for key, place in table.places.items():
        by_file.setdefault(place.file, {}).setdefault(place, key)
    parts: list[tuple[Place, Checkpoint]] = []
    sizes: dict[str, int] = {}
    damage: list[Damage] = []
    shared: list[tuple[Key, Key]] = []
    files = []
    templates = None if describe_file.audit else Templates()
    for name in sorted(by_file, key=natural):
        if not is_plain(name):
            damage.append(_outside(name))
            continue
        where = folder.path / name
        try:
            source = open_source(str(where))
        except Unreadable as error:
            if where.exists():
                damage.append(Damage("unreadable-part", name, f"the file cannot be read: {error.why}"))
            continue
        sizes[name] = source.size
        files.append(str(where))
        try:
            wanted = _apart(by_file[name], source.size, shared)
            damage += _transformed(name, [place for place in by_file[name] if place.transforms])
            parts += [(place, _described(source, place, describe_file, templates)) for place in wanted]
            if source.changed():
                message, hint = "the file changed while it was read", "wait until the writer is done"
                damage.append(Damage("in-progress", name, message, hint=hint))
        except Unreadable as error:
            damage.append(Damage("unreadable-part", name, f"the file cannot be read: {error.why}"))
        finally:
            source.close()
    return _gathered(table, parts, sizes, tuple(files), tuple(shared), damage)


def _gathered(
    table: Table,
    parts: Sequence[tuple[Place, Checkpoint]],
    sizes: dict[str, int],
    files: tuple[str, ...],
    shared: tuple[tuple[Key, Key], ...],
    damage: list[Damage],
) -> Slices:
    damage += [_broken(place, part) for place, part in parts if part.kind or part.root is None]
    sound = [(place, part) for place, part in parts if not part.kind]
    merged = merge([(label(place), part) for place, part in sound])
    pairs = zip(sound, merged.roots, strict=True)
    roots = {place: root for (place, _), root in pairs if root is not None}
    return Slices(merged, roots, table.places, sizes, files, sum(sizes.values()), shared, tuple(damage))


def _apart(claims: dict[Place, Key], size: int, shared: list[tuple[Key, Key]]) -> list[Place]:
    """The places of one file that lie in it, in order, none of which begins within another."""
    kept: list[Place] = []
    for place in sorted(claims, key=lambda one: (one.start, one.stop)):
        if place.stop > size or place.transforms or not place.nbytes:
            continue
        if kept and place.start < kept[-1].stop:
            shared.append((claims[kept[-1]], claims[place]))
        else:
            kept.append(place)
    return kept


def _described(source: Source, place: Place, describe_file: Describe, templates: Templates | None) -> Checkpoint:
    known = None if templates is None else templates.read(source, place.start, place.nbytes)
    if known is not None:
        return known
    found = describe_file(Slice(source, place.start, place.stop))
    if templates is not None:
        templates.learn(source, place.start, place.nbytes, found)
    return lifted(found, place.start)


def _outside(name: str) -> Damage:
    message = f"names {printable(name)[:200]!r}, which is not a file of this folder; it is not opened"
    hint = "take the checkpoint from a source you trust"
    return Damage("shard-path", ".metadata", message, {"name": name[:200]}, hint)


def _transformed(name: str, places: Sequence[Place]) -> list[Damage]:
    if not places:
        return []
    how = ", ".join(sorted({printable(text) for place in places for text in place.transforms})[:5])
    message = f"{plural(len(places), 'slice')} went through {how}, which this tool does not undo"
    return [Damage("unreadable-part", name, message, {"slices": len(places)})]


def _broken(place: Place, part: Checkpoint) -> Damage:
    said = part.damage[0].message if part.damage else "nothing in it can be read"
    what = f"no archive of torch: {said}" if part.kind else f"an archive without a tree ({said})"
    facts: dict[str, Json] = {"file": place.file, "start": place.start, "bytes": place.nbytes}
    hint = "fetch this file again; the slices beside it were read"
    return Damage("chunk-damaged", label(place), f"{plural(place.nbytes, 'byte')} are {what}", facts, hint)
