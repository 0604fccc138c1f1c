"""What reading a damaged checkpoint comes to, and which findings say that one is damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from ckpttool.checks import rules
from ckpttool.draft import Content, contents_of
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Finding, Storage
from ckpttool.profiles import lay_out
from ckpttool.repairing.case import Loss, Proof, Wishes
from ckpttool.repairing.proof import prove
from ckpttool.rules import Context
from ckpttool.verbs.findings import judge
from ckpttool.verbs.repair_healing import Healing
from ckpttool.writing.restoring import Restored

Progress = Callable[[int, int], None]

ZIPS = ("torch-zip", "torchscript")

HURT = ("integrity", "hostile")
"""What an error says of a file that needs repair: its bytes are not what was written, or can be read in two ways."""

UNSOUND = ("sparse-index", "nested-bounds")
"""Findings about a tensor whose parts are whole, and which no loader can put together."""


@dataclass(frozen=True, slots=True)
class Task:
    """One checkpoint to be read: its path, another one of the same run, what is asked for."""

    path: str
    donor: Checkpoint | None
    wishes: Wishes
    limits: Limits
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A checkpoint as far as it can be read: what hurts, what its content is worth, and where it comes from now.

    ``contents`` has one item for each storage. ``restored`` is the original archive, where all of it is proved.
    ``healing`` says which records were had back, and which one flipped bit would explain. ``missing`` are tensors of
    which not even the description is left. ``tree`` is whose the names are: ``own``, ``donor``, or
    ``places`` where tensors are called by where they lie.
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


def as_read(
    task: Task,
    checkpoint: Checkpoint,
    hurt: Sequence[Finding],
    *,
    measures: Measures | None = None,
    notes: tuple[str, ...] = (),
    tree: str = "own",
    missing: Sequence[Loss] = (),
) -> Broken:
    """A checkpoint whose bytes are taken as they lie, each worth what its checksum says; measured unless it is."""
    if measures is None:
        from ckpttool.measure import measure

        measures = measure(checkpoint, progress=task.progress)
    proofs = _doubted(checkpoint, prove(checkpoint, measures), hurt)
    contents = contents_of(checkpoint)
    return Broken(
        checkpoint, measures, contents, proofs, tuple(hurt), task.donor, notes, tree=tree, missing=tuple(missing)
    )


def _doubted(checkpoint: Checkpoint, proofs: dict[Storage, Proof], hurt: Sequence[Finding]) -> dict[Storage, Proof]:
    """Whole tensors that no checksum proves, and in which pages are zero where numbers were."""
    runs = {finding.where: finding.message for finding in hurt if finding.name == "zero-run"}
    for entry, tensor in checkpoint.tensors() if runs else ():
        storage = None if tensor.storage is None else checkpoint.storages[tensor.storage]
        if entry.key in runs and storage is not None and proofs[storage].state in ("unprovable", "unproved"):
            proofs[storage] = Proof("damaged", runs[entry.key], storage.nbytes)
    return proofs


def judged(checkpoint: Checkpoint, measures: Measures | None = None) -> tuple[Finding, ...]:
    """Every finding about a checkpoint."""
    return judge(Context(checkpoint, lay_out(checkpoint), measures))


def hurt_of(findings: Sequence[Finding], checkpoint: Checkpoint) -> tuple[Finding, ...]:
    """The findings that say that a file needs repair; all errors of what is not recognised any more."""
    if checkpoint.kind:
        return tuple(f for f in findings if f.severity == "error")
    known = {rule.code: rule for rule in rules().values()}
    return tuple(f for f in findings if f.severity == "error" and known[f.code].axis in HURT)
