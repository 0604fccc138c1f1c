"""Several checkpoints as one: arenas laid end to end, names told apart by the file they come from."""

from __future__ import annotations

from collections.abc import Sequence as SequenceABC
from dataclasses import replace

from ckpttool.frozen import dataclass
from ckpttool.model import (
    Call,
    Checkpoint,
    Damage,
    Extent,
    GlobalUse,
    Json,
    Mapping,
    Node,
    Sequence,
    Storage,
    Tensor,
    Value,
)


@dataclass(frozen=True, slots=True)
class Merged:
    """The parts in one arena. ``roots`` are the parts' roots in it, None for a part without a tree."""

    nodes: tuple[Node, ...]
    roots: tuple[int | None, ...]
    storages: tuple[Storage, ...]
    extents: tuple[Extent, ...]
    globals: tuple[GlobalUse, ...]
    damage: tuple[Damage, ...]
    files: tuple[str, ...]
    nbytes: int
    metadata: dict[str, Json]


def merge(parts: SequenceABC[tuple[str, Checkpoint]]) -> Merged:
    """Lay the arenas of named parts end to end; linear, without recursion.

    Records, extents, globals and damage are named ``part: name``; spans stay as they are. ``metadata`` holds
    each part's format and metadata under its name.
    """
    nodes: list[Node] = []
    roots: list[int | None] = []
    storages: list[Storage] = []
    extents: list[Extent] = []
    uses: list[GlobalUse] = []
    damage: list[Damage] = []
    files: dict[str, None] = {}
    metadata: dict[str, Json] = {}
    for name, part in parts:
        base, first = len(nodes), len(storages)
        nodes.extend([_moved(node, base, first) for node in part.nodes])
        roots.append(None if part.root is None else base + part.root)
        storages.extend([_renamed(storage, name) for storage in part.storages])
        extents.extend([replace(extent, name=f"{name}: {extent.name}") for extent in part.extents])
        uses.extend(replace(use, where=within(name, use.where)) for use in part.globals)
        damage.extend(lifted(name, found) for found in part.damage)
        files.update(dict.fromkeys(part.files or (part.source,)))
        metadata[name] = {"format": part.format, **dict(part.metadata)}
    total = sum(part.nbytes for _, part in parts)
    return Merged(
        tuple(nodes), tuple(roots), tuple(storages), tuple(extents), tuple(uses), tuple(damage),
        tuple(files), total, metadata,
    )  # fmt: skip


def within(name: str, where: str) -> str:
    """How a place inside a part is written."""
    return f"{name}: {where}" if where else name


def lifted(name: str, damage: Damage) -> Damage:
    """A part's damage, said of the whole: the same rule at ``part: where``."""
    return replace(damage, where=within(name, damage.where))


def _renamed(storage: Storage, name: str) -> Storage:
    # Spelled out: dataclasses.replace takes three times as long, and shards hold many tensors.
    return Storage(
        storage.key, storage.dtype, storage.nbytes, storage.span, storage.checksum, storage.device,
        f"{name}: {storage.record}" if storage.record else "", storage.inline, storage.swapped,
    )  # fmt: skip


def _moved(node: Node, base: int, first: int) -> Node:
    """A node ``base`` places further on, its storage ``first`` places further."""
    if isinstance(node, Value):
        return node if node.call is None else Value(node.value, base + node.call)
    if isinstance(node, Tensor):
        return _moved_tensor(node, base, first)
    if isinstance(node, Sequence):
        return Sequence(node.kind, _shifted(node.items, base), _shift(node.state, base))
    if isinstance(node, Mapping):
        keys, values = _shifted(node.keys, base), _shifted(node.values, base)
        return Mapping(node.kind, keys, values, _shift(node.state, base), _shifted(node.extra, base))
    if isinstance(node, Call):
        return Call(
            node.how, node.module, node.name, _shifted(node.args, base), _shift(node.state, base),
            _shifted(node.items, base), _shifted(node.keys, base), _shifted(node.values, base),
        )  # fmt: skip
    return node


def _moved_tensor(node: Tensor, base: int, first: int) -> Tensor:
    parts = tuple([(name, index + base) for name, index in node.parts])
    return Tensor(
        node.dtype, node.shape, node.stride, node.offset, _shift(node.storage, first), node.requires_grad,
        node.layout, node.form, parts, _shift(node.call, base),
    )  # fmt: skip


def _shift(index: int | None, base: int) -> int | None:
    return None if index is None else index + base


def _shifted(indices: tuple[int, ...], base: int) -> tuple[int, ...]:
    return tuple([index + base for index in indices])
