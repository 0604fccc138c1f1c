"""What the judges of geometry share: faulty nodes become damage that names where in the tree they are.

Judges look at the flat tuple of nodes first; paths are worked out only where something was found, so a
healthy checkpoint costs one pass over its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping as MappingABC

from ckpttool.errors import printable
from ckpttool.model import Checkpoint, Damage, Facts, Json, Tensor
from ckpttool.tree import children

MOST = 20
"""Findings that one rule lists for one checkpoint; one more says how many there are in all."""

LONGEST = 4096
"""Characters of a key after which its beginning is left out: a file can make one key stand for gigabytes."""

INT64 = 1 << 63
"""torch keeps sizes, strides, offsets and byte counts in signed 64-bit integers."""

Fault = tuple[str, Facts]
"""A message and its numbers."""


def faulty_tensors(
    checkpoint: Checkpoint, rule: str, fault: Callable[[Tensor], Fault | None], hint: str = ""
) -> Iterator[Damage]:
    """Damage for each tensor node that ``fault`` objects to: once a node, in the file's order.

    ``fault`` may look at a tensor's geometry and at how large its storage is. A Parameter and the tensor that
    it wraps have the same geometry and count once.
    """
    found: dict[int, Fault] = {}
    fine: set[object] = set()  # a model has few geometries, however many tensors
    for index, node in enumerate(checkpoint.nodes):
        if type(node) is not Tensor:
            continue
        held = storage_bytes(checkpoint, node)
        form = (node.shape, node.stride, node.offset, node.dtype.name, node.layout, held)
        if form in fine:
            continue
        if (judged := fault(node)) is None:
            fine.add(form)
        else:
            found[index] = judged
    inner = {part for index in found for part in _same_inside(checkpoint, index)}
    kept = {index: judged for index, judged in found.items() if index not in inner}
    places = keys_of(checkpoint, list(kept)[:MOST])
    yield from capped(rule, ((places[i], kept[i]) for i in list(kept)[:MOST]), len(kept), "tensors", hint)


def capped(rule: str, faults: Iterable[tuple[str, Fault]], total: int, things: str, hint: str = "") -> Iterator[Damage]:
    """The given faults as damage, and one that counts them all where ``total`` is more than were given."""
    shown = 0
    for where, (message, facts) in faults:
        shown += 1
        yield Damage(rule, where, message, facts, hint)
    if total > shown:
        counts: dict[str, Json] = {"count": total, "shown": shown}
        yield Damage(rule, "", f"{total} {things} in all; the first {shown} are listed", counts, hint)


def keys_of(checkpoint: Checkpoint, wanted: Iterable[int]) -> dict[int, str]:
    """Where the ``wanted`` nodes first stand, as keys; ``<node 7>`` for what no path leads to.

    Every node is visited once if anything is wanted, so this is linear in the arena.
    """
    asked = list(wanted)
    parents = _parents(checkpoint) if asked else {}
    return {index: _key(parents, index) for index in asked}


Parents = MappingABC[int, tuple[int | None, tuple[str, ...]]]


def _parents(checkpoint: Checkpoint) -> Parents:
    nodes = checkpoint.nodes
    parents: dict[int, tuple[int | None, tuple[str, ...]]] = {}
    stack: list[tuple[int | None, tuple[str, ...], int]] = []
    if checkpoint.root is not None:
        stack.append((None, (), checkpoint.root))
    while stack:
        parent, step, index = stack.pop()
        if index in parents:
            continue
        parents[index] = (parent, step)
        node = nodes[index]
        below = [((n,), i) for n, i in node.parts] if isinstance(node, Tensor) else children(nodes, node)
        stack.extend((index, inner, child) for inner, child in reversed(below))
    return parents


def _key(parents: Parents, index: int) -> str:
    if index not in parents:
        return f"<node {index}>"
    steps: list[str] = []
    left = LONGEST
    here: int | None = index
    while here is not None and left > 0:
        here, step = parents[here]
        steps.extend(text[:LONGEST] for text in reversed(step))
        left -= sum(1 + len(text) for text in step)
    if here is not None:
        steps.append("…")
    return printable(".".join(reversed(steps)))


def _same_inside(checkpoint: Checkpoint, index: int) -> Iterator[int]:
    outer = checkpoint.nodes[index]
    assert isinstance(outer, Tensor)
    for _, part in outer.parts:
        inner = checkpoint.nodes[part]
        if isinstance(inner, Tensor) and _geometry(inner) == _geometry(outer):
            yield part


def _geometry(tensor: Tensor) -> tuple[object, ...]:
    return (tensor.storage, tensor.offset, tensor.shape, tensor.stride, tensor.dtype)


def storage_keys(checkpoint: Checkpoint, storages: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """The keys of the first tensors that look into each storage; the storage's own name where none does."""
    users: dict[int, list[int]] = {index: [] for index in storages}
    for index, node in enumerate(checkpoint.nodes if users else ()):
        if isinstance(node, Tensor) and node.storage in users and len(users[node.storage]) < 4 * MOST:
            users[node.storage].append(index)
    places = keys_of(checkpoint, [i for listed in users.values() for i in listed]) if users else {}
    return {storage: _named(checkpoint, storage, users[storage], places) for storage in users}


def _named(checkpoint: Checkpoint, storage: int, users: list[int], places: MappingABC[int, str]) -> tuple[str, ...]:
    inner = {part for index in users for part in _same_inside(checkpoint, index)}
    rooted = [places[i] for i in users if i not in inner and not places[i].startswith("<node ")]
    return tuple(rooted[:MOST]) or (f"storage {printable(checkpoint.storages[storage].key[:LONGEST])}",)


def quoted(text: str) -> str:
    """A name from the file as a message shows it."""
    return f"'{printable(text[:200])}'"


# --- shapes ----------------------------------------------------------------------------------------------


def malformed(tensor: Tensor) -> str | None:
    """Why sizes, strides and offset describe no view at all, wherever it may lie; None where they do.

    Stops at the first number past 64 bits, so a shape of any length and size costs one pass.
    """
    if any(size < 0 for size in tensor.shape):
        return f"shape {listed(tensor.shape)} has a negative size"
    strided = tensor.storage is not None or tensor.layout == "meta"
    if strided and len(tensor.shape) != len(tensor.stride):
        return f"shape has {len(tensor.shape)} dimensions and stride has {len(tensor.stride)}"
    if any(abs(number) >= INT64 for number in (*tensor.shape, *tensor.stride, tensor.offset)):
        return f"shape {listed(tensor.shape)}, stride {listed(tensor.stride)} or offset is past 64 bits"
    if 0 in tensor.shape:
        return None
    numel = 1
    for size in tensor.shape:
        numel *= size
        if numel >= INT64:
            return f"shape {listed(tensor.shape)} has more elements than 64 bits can count"
    if tensor.storage is not None and _reach(tensor) >= INT64:
        return f"shape {listed(tensor.shape)} with stride {listed(tensor.stride)} spans more than 2^63 bytes"
    return None


def _reach(tensor: Tensor) -> int:
    return tensor.dtype.nbytes(tensor.offset + tensor.extent)


def listed(numbers: tuple[int, ...]) -> str:
    """A shape or stride as text, cut after eight numbers of at most twenty digits."""
    shown = [str(n) if abs(n) < INT64 << 1 else ("-…" if n < 0 else "…") for n in numbers[:8]]
    return f"[{', '.join(shown)}{', …' if len(numbers) > 8 else ''}]"


def storage_bytes(checkpoint: Checkpoint, tensor: Tensor) -> int | None:
    """Bytes that the tensor's storage is declared to have; None for tensors without a storage."""
    return None if tensor.storage is None else checkpoint.storages[tensor.storage].nbytes
