"""Reading what is damaged: described as far as it goes, measured, healed where a proof is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from ckpttool.checks import rules
from ckpttool.draft import Content, contents_of
from ckpttool.errors import CkpttoolError, printable
from ckpttool.formats import describe, plain_salvage, sharded, zip_salvage
from ckpttool.formats.patched import Patched
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_salvage import Salvaged, crc_of
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Finding, Storage
from ckpttool.profiles import lay_out
from ckpttool.repairing.case import Loss, Proof, Wishes
from ckpttool.repairing.proof import prove
from ckpttool.repairing.syndrome import flipped_bit, mimicry
from ckpttool.rules import Context
from ckpttool.source import Source, open_source
from ckpttool.verbs.findings import judge
from ckpttool.verbs.repair_healing import Healing, heal
from ckpttool.writing.restoring import Restored, restored

Progress = Callable[[int, int], None]

ZIPS = ("torch-zip", "torchscript")

HURT = ("integrity", "hostile")
"""What an error says of a file that needs repair: its bytes are not what was written, or can be read in two ways."""

UNSOUND = ("sparse-index", "nested-bounds")
"""Findings about a tensor whose parts are whole, and which no loader can put together."""

HEADERS = (
    "header-malformed", "header-ambiguous", "truncated", "over-limit", "byte-swapped-size", "storage-declaration",
    "invalid-shape", "storage-size", "unowned-bytes", "not-a-checkpoint", "header-mismatch", "pickle-malformed",
)  # fmt: skip
"""Findings that say that a header, where there is one, does not let the file be read."""

UNWANTED = frozenset({"trailing-pickle", "inflate-bomb"})
"""Findings about what records hold: such archives are not written again as they were."""

HOSTILE = frozenset({"duplicate-record", "bad-record-name", "overlapping-records"})
"""Two readers would see two files, unless the checksum of checksums says that only the directory is damaged."""

UNREAD = ("storage-size", "header-malformed", "invalid-shape", "storage-declaration", "header-ambiguous")
"""Findings about one entry of a safetensors header, after which it is not read."""

ODD = ("not-canonical", "trailing-bytes")
"""Warnings that need repair where the archive's checksum of checksums proves what torch wrote instead."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A checkpoint as far as it can be read: what hurts, what its content is worth, and where it comes from now.

    ``contents`` has one item for each storage. ``restored`` is the original archive, where all of it is proved.
    ``healing`` says which records were had back, and which one flipped bit would explain. ``missing`` are tensors of
    which not even the description is left.
    """

    checkpoint: Checkpoint
    measures: Measures
    contents: tuple[Content, ...]
    proofs: Mapping[Storage, Proof] = field(hash=False)
    hurt: tuple[Finding, ...] = ()
    donor: Checkpoint | None = None
    notes: tuple[str, ...] = ()
    healing: Healing = Healing()
    restored: Restored | None = None
    tree: str = "own"
    missing: tuple[Loss, ...] = ()


def read_broken(
    path: str | os.PathLike[str],
    like: str | os.PathLike[str] | None,
    wishes: Wishes,
    limits: Limits,
    progress: Progress | None,
) -> Broken:
    """Describe, measure, heal. Raises ``CkpttoolError`` for what is no checkpoint, ``Unreadable``."""
    from ckpttool.measure import measure

    seen = describe(path, limits, audit=True)
    donor = None if like is None else _donor(like, limits)
    hurt = hurt_of(judge(Context(seen, lay_out(seen))), seen)
    special = _of_shards(path, seen, hurt, donor, limits, progress)
    if special is None and hurt and seen.format not in ZIPS:
        special = _rebuilt(path, hurt, donor, limits, progress)
    if special is not None:
        return special
    if (seen.format in ZIPS and not _is_legible(hurt)) or seen.kind:
        return _opened(path, seen, hurt, donor, wishes, limits, progress)
    measures = measure(seen, progress=progress)
    findings = judge(Context(seen, lay_out(seen), measures))
    hurt = hurt_of(findings, seen)
    proofs = _doubted(seen, prove(seen, measures), hurt)
    missing = tuple(_unread(seen, hurt))
    whole = Broken(seen, measures, contents_of(seen), proofs, hurt, donor, missing=missing)
    if seen.format not in ZIPS:
        return whole
    if not _is_legible(hurt):
        return _opened(path, seen, hurt, donor, wishes, limits, progress)
    odd = tuple(f for f in findings if f.name in ODD)
    if odd:
        again = _opened(path, seen, odd, donor, wishes, limits, progress)
        if again.restored is not None and again.restored.identified:
            return again
    return whole


def _is_legible(hurt: Sequence[Finding]) -> bool:
    """Whether all that hurts is how records are called: the directory leads to each of them all the same."""
    return all(finding.name == "bad-record-name" for finding in hurt)


def _unread(checkpoint: Checkpoint, hurt: Sequence[Finding]) -> Iterator[Loss]:
    """Tensors that a header names and does not describe so that they can be read."""
    if checkpoint.format != "safetensors":
        return
    have = {entry.key for entry, _ in checkpoint.tensors()} | {"header", "__metadata__"}
    for finding in hurt:
        if finding.name in UNREAD and finding.where not in have:
            yield Loss(finding.where, finding.message, 0)


def _doubted(
    checkpoint: Checkpoint, proofs: dict[Storage, Proof], hurt: Sequence[Finding]
) -> dict[Storage, Proof]:
    """Whole tensors that no checksum proves, and in which pages are zero where numbers were."""
    runs = {finding.where: finding.message for finding in hurt if finding.name == "zero-run"}
    for entry, tensor in checkpoint.tensors() if runs else ():
        storage = None if tensor.storage is None else checkpoint.storages[tensor.storage]
        if entry.key in runs and storage is not None and proofs[storage].state in ("unprovable", "unproved"):
            proofs[storage] = Proof("damaged", runs[entry.key], storage.nbytes)
    return proofs


def _rebuilt(
    path: str | os.PathLike[str],
    hurt: tuple[Finding, ...],
    donor: Checkpoint | None,
    limits: Limits,
    progress: Progress | None,
) -> Broken | None:
    """A file without checksums whose header is made out again; None where its header does not need that."""
    from ckpttool.measure import measure

    if not any(f.name in HEADERS for f in hurt) or Path(path).is_dir() or "://" in os.fspath(path):
        return None
    source = open_source(path)
    try:
        found = plain_salvage.rebuild(source, limits, donor)
    finally:
        source.close()
    if found is None:
        return None
    checkpoint = found.checkpoint
    measures = measure(checkpoint, progress=progress)
    missing = tuple(Loss(name, "its entry in the header is damaged", 0) for name in found.lost)
    proofs = _doubted(checkpoint, prove(checkpoint, measures), hurt)
    return Broken(
        checkpoint, measures, contents_of(checkpoint), proofs, hurt, donor, found.notes, tree=found.tree,
        missing=missing,
    )  # fmt: skip


def _of_shards(
    path: str | os.PathLike[str],
    seen: Checkpoint,
    hurt: tuple[Finding, ...],
    donor: Checkpoint | None,
    limits: Limits,
    progress: Progress | None,
) -> Broken | None:
    """Shards, each salvaged for itself; what the index puts into shards that are gone is missing by name."""
    from ckpttool.measure import measure

    if seen.format != "sharded" or not hurt:
        return None
    index = sharded.read_index(seen.source, limits)
    whole = sharded.read_path(seen.source, limits, lambda member: _member(member, donor, limits))
    measures = measure(whole, progress=progress)
    have = {entry.path[0] for entry, _ in whole.tensors() if entry.path}
    missing = tuple(
        Loss(key, f"its shard {shard} is not there or cannot be read", 0)
        for key, shard in index.weight_map.items()
        if key not in have
    )
    proofs = _doubted(whole, prove(whole, measures), hurt)
    return Broken(whole, measures, contents_of(whole), proofs, hurt, donor, missing=missing)


def _member(path: str, donor: Checkpoint | None, limits: Limits) -> Checkpoint:
    """A shard as far as it can be read."""
    seen = describe(path, limits, audit=True)
    if not hurt_of(judge(Context(seen, lay_out(seen))), seen):
        return seen
    source = open_source(path)
    try:
        if seen.format in ZIPS:
            found = zip_salvage.salvage(source, limits)
            return seen if found is None else found.checkpoint
        rebuilt = plain_salvage.rebuild(source, limits, donor)
        return seen if rebuilt is None else rebuilt.checkpoint
    finally:
        source.close()


def _opened(
    path: str | os.PathLike[str],
    seen: Checkpoint,
    hurt: tuple[Finding, ...],
    donor: Checkpoint | None,
    wishes: Wishes,
    limits: Limits,
    progress: Progress | None,
) -> Broken:
    source = open_source(path)
    try:
        return _salvaged(seen, source, hurt, donor, wishes, limits, progress)
    finally:
        source.close()


def hurt_of(findings: Sequence[Finding], checkpoint: Checkpoint) -> tuple[Finding, ...]:
    """The findings that say that a file needs repair; all errors of what is not recognised any more."""
    if checkpoint.kind:
        return tuple(f for f in findings if f.severity == "error")
    known = {rule.code: rule for rule in rules().values()}
    return tuple(f for f in findings if f.severity == "error" and known[f.code].axis in HURT)


def _donor(path: str | os.PathLike[str], limits: Limits) -> Checkpoint:
    found = describe(path, limits)
    where = printable(os.fspath(path))
    if found.kind or found.root is None:
        raise CkpttoolError(f"{where} – this is no checkpoint that could stand in for another")
    damage = [
        one for one in found.damage if one.rule in ("truncated", "directory-damaged", "pickle-malformed")
    ]
    if damage:
        raise CkpttoolError(f"{where} – is damaged itself: {damage[0].message}; name a sound one")
    return found


# --- archives --------------------------------------------------------------------------------------------------


def _salvaged(
    seen: Checkpoint,
    source: Source,
    framing: tuple[Finding, ...],
    donor: Checkpoint | None,
    wishes: Wishes,
    limits: Limits,
    progress: Progress | None,
) -> Broken:
    from ckpttool.measure import measure

    where = printable(seen.source)
    found = zip_salvage.salvage(source, limits, donor)
    if found is None or (seen.kind and not found.records):
        raise CkpttoolError(
            f"{where} – this is {seen.kind or 'an archive without records'}, nothing to repair"
        )
    found, view, notes = _with_tree(found, source, donor, wishes, limits)
    measures = measure(found.checkpoint, progress=progress, sources=(view,))
    computed = {name: span.crc32 for name, span in measures.spans.items()}
    whole = {r.name: computed[r.name] for r in found.records if r.stop <= source.size and r.name in computed}
    whole.update((r.name, 0) for r in found.records if not r.usize)
    healing = heal(found, source, whole, donor, wishes)
    if isinstance(view, Patched):
        healing = _with_patch(found, view, healing)
    proofs = dict(prove(found.checkpoint, measures))
    contents = list(contents_of(found.checkpoint))
    for index, storage in enumerate(found.checkpoint.storages):
        if storage.record in healing.contents and storage.inline is None:
            contents[index] = healing.contents[storage.record][0]
            proofs[storage] = Proof("proved", healing.reasons[storage.record], storage.nbytes)
    judged = judge(Context(found.checkpoint, lay_out(found.checkpoint), measures))
    framing = (*framing, *(f for f in judged if f.name in UNSOUND and f not in framing))
    again = restored(found, whole, healing.contents) if found.tree == "own" else None
    names = {finding.name for finding in framing}
    unwanted = any(damage.rule in UNWANTED for damage in found.checkpoint.damage)
    if again is not None and (unwanted or (names & HOSTILE and not again.identified)):
        again = None
    if again is not None:
        proofs = {storage: Proof("proved", proof.reason, proof.kept) for storage, proof in proofs.items()}
    return Broken(
        found.checkpoint, measures, tuple(contents), proofs, framing, donor, notes, healing, again, found.tree
    )


def _with_patch(found: Salvaged, view: Patched, healing: Healing) -> Healing:
    """The tree whose flipped bit was turned back, among the records that were had back."""
    from ckpttool.draft import Held

    tree = _tree_record(found)
    assert tree is not None
    content = Held(view.read(tree.data, tree.usize))
    reason = "one flipped bit of the tree was turned back, as its checksum says"
    return Healing(
        {**healing.contents, tree.name: (content, found.checksums[tree.name][0])},
        {**healing.reasons, tree.name: reason},
        healing.curable,
    )


def _tree_record(found: Salvaged) -> Record | None:
    name = f"{found.folder}/data.pkl"
    return next((record for record in found.records if record.name == name), None)


def _with_tree(
    found: Salvaged, source: Source, donor: Checkpoint | None, wishes: Wishes, limits: Limits
) -> tuple[Salvaged, Source, tuple[str, ...]]:
    """The archive with a tree that can be believed: its own, its own with a bit turned back, or the donor's."""
    where = printable(source.name)
    record = _tree_record(found)
    checksums = found.checksums.get(record.name, ()) if record is not None else ()
    have = None if record is None or record.stop > source.size else crc_of(source, record.data, record.usize)
    if found.tree == "own" and (have in checksums or not checksums):
        return (
            found,
            source,
            () if checksums else ("the tree's checksum is gone: nothing proves names and shapes",),
        )
    bit = None
    if record is not None and have is not None:
        bit = next((b for crc in checksums if (b := flipped_bit(crc, have, record.usize))), None)
    if wishes.fix_bit and bit is not None and record is not None:
        at = record.data + bit[0]
        view = Patched(source, {at: source.read(at, 1)[0] ^ 1 << bit[1]})
        again = zip_salvage.salvage(view, limits, donor)
        if again is not None and again.tree == "own":
            odds = f"other damage looks the same with a probability of {mimicry(record.usize):.1g}"
            return again, view, (f"bit {bit[1]} of byte {at}, in the tree, is turned back; {odds}",)
    if donor is not None:
        again = zip_salvage.salvage(source, limits, donor, own_tree=False)
        if again is not None and _is_twin(donor, checksums, record):
            return replace(again, tree="own"), source, ()
        if again is not None:
            other = printable(donor.source)
            note = f"names, shapes and values that are no tensors (counters, rates) are those of {other}"
            return again, source, (note,)
    if found.tree == "own" and wishes.include_unproved:
        return found, source, ("the tree contradicts its checksum: names, shapes and values may be wrong",)
    raise CkpttoolError(_hopeless(where, found, bit is not None))


def _is_twin(donor: Checkpoint, checksums: tuple[int, ...], record: Record | None) -> bool:
    """Whether the other checkpoint's tree is, byte for byte, the one that was lost here."""
    sizes = {(e.checksum.value, e.span.nbytes) for e in donor.extents if e.checksum is not None}
    return record is not None and any((crc, record.usize) in sizes for crc in checksums)


def _hopeless(where: str, found: Salvaged, bit: bool) -> str:
    payloads = sum("/data/" in record.name for record in found.records)
    why = _why_no_tree(found) if found.tree != "own" else "it contradicts its checksum"
    ways = ["--like GOOD.pth, another checkpoint of the same run"]
    if bit:
        ways.insert(0, "--fix-bit: a single flipped bit explains it")
    if found.tree == "own":
        ways.append("--include-unproved")
    return (
        f"{where} – the tree, which names the tensors, is damaged ({why}); {payloads} payloads are there without "
        f"names; run again with {', or '.join(ways)}"
    )


def _why_no_tree(found: Salvaged) -> str:
    """Why there is no tree, in words."""
    problems = [
        one.message for one in found.checkpoint.damage if one.rule in ("pickle-malformed", "over-limit")
    ]
    return (
        printable(problems[0]) if problems else "the record data.pkl, which names the tensors, is not there"
    )
