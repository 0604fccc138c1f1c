"""A manifest as proof: tensors whose digests are those that were sealed are what was written, checksum or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckpttool.checks._seals import altered
from ckpttool.manifest import Sealed, TensorSeal
from ckpttool.model import Checkpoint, Storage, Tensor
from ckpttool.profiles import lay_out
from ckpttool.repairing.case import Proof
from ckpttool.rules import Context
from ckpttool.verbs.repair_broken import Broken, Task
from ckpttool.verbs.sealed import examine_seal, has_seal

BY = "manifest"
"""What a proof is called that a manifest gives."""

SEALS = ("digest-mismatch", "sealed-file-missing")
"""Findings that rest on a manifest; others say that a file is damaged whatever was sealed."""


def seal_beside(checkpoint: Checkpoint, path: str) -> Sealed | None:
    """The manifest that speaks of a checkpoint and what its files hold now; None where there is none."""
    return examine_seal(checkpoint, path) if has_seal(checkpoint, path) else None


def proved_by_seal(task: Task, broken: Broken) -> Broken:
    """The same, each storage worth what the manifest says of the tensors in it; as it was where there is none.

    A storage is proved where every tensor in it is what was sealed, and damaged where one is not and no checksum of
    its own says otherwise. A manifest of a file that was written anew proves nothing. Reads the tensors once more.
    """
    seal = broken.measures.seal or seal_beside(broken.checkpoint, task.path)
    if seal is None or not broken.proofs:
        return broken
    if seal.manifest is None:
        return replace(broken, notes=(*broken.notes, f"the manifest {seal.where} cannot be read: {seal.error}"))
    measures = replace(broken.measures, seal=seal)
    context = Context(broken.checkpoint, lay_out(broken.checkpoint), measures)
    hurt = any(finding.name not in SEALS for finding in broken.hurt)
    if not hurt and any(found.kind == "edited" for found in altered(context)):
        note = f"the manifest {seal.where} describes what the file was before it was written anew: it proves nothing"
        return replace(broken, measures=measures, notes=(*broken.notes, note))
    proofs = {**broken.proofs, **dict(_judged(broken, seal))}
    return replace(broken, measures=measures, proofs=proofs)


def _judged(broken: Broken, seal: Sealed) -> Iterator[tuple[Storage, Proof]]:
    """What the manifest says of each storage, where it says anything that is not known."""
    from ckpttool.measure.seals import tensor_seals, tensors_of

    checkpoint = broken.checkpoint
    before = {one.key: one for one in (seal.manifest.tensors if seal.manifest is not None else ())}
    now = {one.key: one for one in tensor_seals(checkpoint)}
    views: dict[int, list[str]] = {}
    for key, index in tensors_of(checkpoint):
        for at in _storages(checkpoint, index):
            views.setdefault(at, []).append(key)
    for index, keys in views.items():
        storage = checkpoint.storages[index]
        have = broken.proofs.get(storage)
        if have is None or have.state in ("proved", "partial", "lost"):
            continue
        said = [_says(before.get(key), now.get(key)) for key in keys]
        if all(said):
            yield storage, Proof("proved", "", storage.nbytes, BY)
        elif False in said and have.state != "damaged":
            wrong = keys[said.index(False)]
            yield storage, Proof("damaged", f"{wrong} is not what the manifest says", storage.nbytes)


def _storages(checkpoint: Checkpoint, index: int) -> Iterator[int]:
    """The storages that a tensor's elements lie in."""
    stack, seen = [index], {index}
    while stack:
        node = checkpoint.nodes[stack.pop()]
        if not isinstance(node, Tensor):
            continue
        if node.storage is not None:
            yield node.storage
        fresh = [part for _, part in node.parts if part not in seen]
        seen.update(fresh)
        stack.extend(fresh)


def _says(before: TensorSeal | None, now: TensorSeal | None) -> bool | None:
    """Whether a tensor is what was sealed; None where the manifest does not say."""
    if before is None or now is None or not before.digest or not now.digest:
        return None
    return before == now
