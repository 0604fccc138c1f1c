"""An archive of torch's that is damaged: every record that can be found, a tree that can be believed, what heals."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.draft import Held, contents_of
from ckpttool.errors import CkpttoolError, printable
from ckpttool.formats import zip_salvage
from ckpttool.formats.patched import Patched
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_salvage import Salvaged, crc_of
from ckpttool.model import Checkpoint, Finding
from ckpttool.repairing.case import Loss, Proof
from ckpttool.repairing.proof import prove
from ckpttool.repairing.syndrome import flipped_bit, mimicry
from ckpttool.source import Source, open_source
from ckpttool.verbs.repair_broken import UNSOUND, Broken, Task, judged
from ckpttool.verbs.repair_healing import Healing, heal
from ckpttool.writing.restoring import restored

UNWANTED = frozenset({"trailing-pickle", "inflate-bomb"})
"""Findings about what records hold: such archives are not written again as they were."""

HOSTILE = frozenset({"duplicate-record", "bad-record-name", "overlapping-records"})
"""Two readers would see two files, unless the checksum of checksums says that only the directory is damaged."""


NO_CODE = "the TorchScript code is not carried over: the output holds tensors and attributes, for load_state_dict"


def read_archive(task: Task, seen: Checkpoint, framing: tuple[Finding, ...]) -> Broken:
    """Salvage an archive. Raises ``CkpttoolError`` where it has no tree, or there is no archive at all."""
    source = open_source(task.path)
    try:
        return _salvaged(task, seen, source, framing)
    finally:
        source.close()


def _salvaged(task: Task, seen: Checkpoint, source: Source, framing: tuple[Finding, ...]) -> Broken:
    from ckpttool.measure import measure

    where = printable(seen.source)
    found = zip_salvage.salvage(source, task.limits, task.donor)
    if found is None or (seen.kind and not found.records):
        raise CkpttoolError(f"{where} – this is {seen.kind or 'an archive without records'}, nothing to repair")
    found, view, notes = _with_tree(task, found, source)
    measures = measure(found.checkpoint, progress=task.progress, sources=(view,))
    computed = {name: span.crc32 for name, span in measures.spans.items()}
    whole = {r.name: computed[r.name] for r in found.records if r.stop <= source.size and r.name in computed}
    whole.update((r.name, 0) for r in found.records if not r.usize)
    healing = heal(found, source, whole, task.donor, task.wishes)
    if isinstance(view, Patched):
        healing = _with_patch(found, view, healing)
    proofs = dict(prove(found.checkpoint, measures))
    contents = list(contents_of(found.checkpoint))
    for index, storage in enumerate(found.checkpoint.storages):
        if storage.record in healing.contents and storage.inline is None:
            contents[index] = healing.contents[storage.record][0]
            proofs[storage] = Proof("proved", healing.reasons[storage.record], storage.nbytes)
    findings = judged(found.checkpoint, measures)
    framing = (*framing, *(f for f in findings if f.name in UNSOUND and f not in framing))
    again = restored(found, whole, healing.contents) if found.tree == "own" else None
    names = {finding.name for finding in framing}
    unwanted = any(damage.rule in UNWANTED for damage in found.checkpoint.damage)
    if again is not None and (unwanted or (names & HOSTILE and not again.identified)):
        again = None
    if again is not None:
        proofs = {storage: Proof("proved", proof.reason, proof.kept) for storage, proof in proofs.items()}
    script = again is None and seen.format == "torchscript"
    return Broken(
        found.checkpoint,
        measures,
        tuple(contents),
        proofs,
        framing,
        task.donor,
        notes,
        healing,
        again,
        found.tree,
        (Loss("code", NO_CODE, 0),) if script else (),
    )


def _with_patch(found: Salvaged, view: Patched, healing: Healing) -> Healing:
    """The tree whose flipped bit was turned back, among the records that were had back."""
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


def _with_tree(task: Task, found: Salvaged, source: Source) -> tuple[Salvaged, Source, tuple[str, ...]]:
    """The archive with a tree that can be believed: its own, its own with a bit turned back, or the donor's."""
    where, donor = printable(source.name), task.donor
    record = _tree_record(found)
    checksums = found.checksums.get(record.name, ()) if record is not None else ()
    have = None if record is None or record.stop > source.size else crc_of(source, record.data, record.usize)
    if found.tree == "own" and (have in checksums or not checksums):
        return (found, source, () if checksums else ("the tree's checksum is gone: nothing proves names and shapes",))
    bit = None
    if record is not None and have is not None:
        bit = next((b for crc in checksums if (b := flipped_bit(crc, have, record.usize))), None)
    if task.wishes.fix_bit and bit is not None and record is not None:
        at = record.data + bit[0]
        view = Patched(source, {at: source.read(at, 1)[0] ^ 1 << bit[1]})
        again = zip_salvage.salvage(view, task.limits, donor)
        if again is not None and again.tree == "own":
            odds = f"other damage looks the same with a probability of {mimicry(record.usize):.1g}"
            return again, view, (f"bit {bit[1]} of byte {at}, in the tree, is turned back; {odds}",)
    if donor is not None:
        again = zip_salvage.salvage(source, task.limits, donor, own_tree=False)
        if again is not None and _is_twin(donor, checksums, record):
            return replace(again, tree="own"), source, ()
        if again is not None:
            other = printable(donor.source)
            note = f"names, shapes and values that are no tensors (counters, rates) are those of {other}"
            return again, source, (note,)
    if found.tree == "own" and task.wishes.include_unproved:
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
    problems = [one.message for one in found.checkpoint.damage if one.rule in ("pickle-malformed", "over-limit")]
    return printable(problems[0]) if problems else "the record data.pkl, which names the tensors, is not there"
