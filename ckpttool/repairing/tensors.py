"""What tensors are worth: that of the storages they look into, and of the parts that they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from ckpttool.model import Checkpoint, Storage, Tensor
from ckpttool.repairing.case import Proof, State

RANK: dict[State, int] = {state: place for place, state in enumerate(get_args(State))}
"""States, best first."""

NONE = Proof("proved")
"""Of a tensor without bytes of its own."""


def worth(checkpoint: Checkpoint, index: int, proofs: Mapping[Storage, Proof]) -> Proof:
    """What the tensor at a node is worth: the worst of its own bytes and those of its parts."""
    worst = NONE
    stack, seen = [index], {index}
    while stack:
        node = checkpoint.nodes[stack.pop()]
        if not isinstance(node, Tensor):
            continue
        found = _hole(node, checkpoint) or _own(node, checkpoint, proofs)
        if (RANK[found.state], found.by) >= (RANK[worst.state], worst.by):
            worst = found
        fresh = [part for _, part in node.parts if part not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return worst


def _hole(tensor: Tensor, checkpoint: Checkpoint) -> Proof | None:
    """A tensor in chunks, some of which are not in any file; None where none is missing."""
    missing = tensor.numel - chunked_in(tensor, checkpoint) if tensor.layout == "chunked" else 0
    if missing <= 0:
        return None
    if missing == tensor.numel:
        return Proof("lost", "the file that it lies in is not there, or ends before it")
    return Proof("partial", f"{missing} of {tensor.numel} elements lie in chunks that are not there")


def chunked_in(tensor: Tensor, checkpoint: Checkpoint) -> int:
    """How many elements the chunks of a tensor have that are there. They do not overlap."""
    parts = (checkpoint.nodes[index] for _, index in tensor.parts)
    return sum(part.numel for part in parts if isinstance(part, Tensor))


def _own(tensor: Tensor, checkpoint: Checkpoint, proofs: Mapping[Storage, Proof]) -> Proof:
    if tensor.storage is None:
        return NONE
    storage = checkpoint.storages[tensor.storage]
    found = proofs.get(storage, NONE)
    if found.state == "partial" and not missing_in(tensor, found.kept):
        return Proof("unproved", "it is whole, and what its checksum covers is not", found.kept)
    return found


def missing_in(tensor: Tensor, kept: int) -> int:
    """How many of a tensor's elements lie behind the first ``kept`` bytes of its storage. Gaps count as elements."""
    if not tensor.numel:
        return 0
    whole = kept * 8 // max(1, tensor.dtype.bits)
    lacking = tensor.offset + tensor.extent - whole
    return max(0, min(lacking, tensor.numel))


def missing_of(checkpoint: Checkpoint, tensor: Tensor, proof: Proof) -> int | None:
    """How many elements a tensor lacks; None where its checksum disagrees and nothing says where."""
    if proof.state == "lost":
        return tensor.numel
    if proof.state != "partial":
        return None
    if tensor.layout == "chunked":
        return tensor.numel - chunked_in(tensor, checkpoint)
    return missing_in(tensor, proof.kept) if tensor.storage is not None else tensor.numel


def worth_by_key(checkpoint: Checkpoint, proofs: Mapping[Storage, Proof]) -> dict[str, Proof]:
    """The worth of every tensor by its key, each node judged once."""
    known: dict[int, Proof] = {}
    found: dict[str, Proof] = {}
    for entry, _ in checkpoint.tensors():
        if entry.index not in known:
            known[entry.index] = worth(checkpoint, entry.index, proofs)
        found[entry.key] = known[entry.index]
    return found
