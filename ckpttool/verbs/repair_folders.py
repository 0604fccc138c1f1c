"""Distributed checkpoints: names from another one of the run where ``.metadata`` is lost, bits turned in chunks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ckpttool.draft import Content, contents_of
from ckpttool.model import Checkpoint, Extent, Finding, Span, Storage
from ckpttool.repairing.case import Proof
from ckpttool.repairing.syndrome import flipped_bit, mimicry
from ckpttool.source import open_source
from ckpttool.verbs.repair_broken import Broken, Task, as_read
from ckpttool.verbs.repair_healing import Healing, about, flipped

NAMELESS = (
    "which tensor is which stood in .metadata: they are called by where they lie; --like GOOD, another checkpoint of "
    "the same run, gives their names"
)


def read_folder(task: Task, seen: Checkpoint, hurt: tuple[Finding, ...]) -> Broken:
    """A distributed checkpoint as far as its files are there; every chunk is proved by its own checksum."""
    notes: tuple[str, ...] = ()
    tree = "own"
    if seen.metadata.get("salvaged"):
        named = None if task.donor is None else _named(seen, task.donor)
        if task.donor is None or named is None:
            tree = "places"
            notes = (NAMELESS,)
        else:
            seen, tree = named, "donor"
            notes = (f"names, shapes and values that are no tensors are those of {task.donor.source}",)
    return _healed(task, as_read(task, seen, hurt, notes=notes, tree=tree))


def _named(seen: Checkpoint, donor: Checkpoint) -> Checkpoint | None:
    """The donor's tree over these files: the same save of the same model puts the same chunks into the same places."""
    here = {_place(extent.span): extent for extent in seen.extents}
    storages = tuple(_taken(storage, here) for storage in donor.storages)
    if donor.format != seen.format or not any(storage.span for storage in storages):
        return None
    damage = tuple(one for one in seen.damage if one.rule != "chunk-missing")
    return replace(seen, nodes=donor.nodes, root=donor.root, storages=storages, globals=donor.globals, damage=damage)


def _place(span: Span) -> tuple[str, int, int]:
    return Path(span.source).name, span.start, span.stop


def _taken(storage: Storage, here: dict[tuple[str, int, int], Extent]) -> Storage:
    found = None if storage.span is None else here.get(_place(storage.span))
    if found is None:
        return replace(storage, span=None, checksum=None)
    return replace(storage, span=found.span, checksum=found.checksum, record=found.name)


def _healed(task: Task, broken: Broken) -> Broken:
    """Chunks of which one bit was flipped, as their checksums say; turned back where that is asked for."""
    extents = {extent.span: extent for extent in broken.checkpoint.extents if extent.method == "stored"}
    contents: dict[str, tuple[Content, int]] = {}
    reasons: dict[str, str] = {}
    curable: dict[str, tuple[int, float]] = {}
    found, proofs = list(contents_of(broken.checkpoint)), dict(broken.proofs)
    for index, storage in enumerate(broken.checkpoint.storages):
        extent = None if storage.span is None else extents.get(storage.span)
        measured = None if extent is None else broken.measures.spans.get(extent.name)
        if proofs[storage].state != "damaged" or extent is None or extent.checksum is None or measured is None:
            continue
        bit = flipped_bit(extent.checksum.value, measured.crc32, extent.span.nbytes)
        if bit is None:
            continue
        odds = mimicry(extent.span.nbytes)
        curable[extent.name] = extent.span.start + bit[0], odds
        if task.wishes.fix_bit:
            source = open_source(extent.span.source)
            found[index] = flipped(source, extent.span, *bit)
            source.close()
            contents[extent.name] = found[index], extent.checksum.value
            reasons[extent.name] = about(extent.span.start + bit[0], bit[1], odds)
            proofs[storage] = Proof("proved", reasons[extent.name], storage.nbytes)
    return replace(broken, contents=tuple(found), proofs=proofs, healing=Healing(contents, reasons, curable))
