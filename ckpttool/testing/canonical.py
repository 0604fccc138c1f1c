"""What a checkpoint says, apart from where it lies: two descriptions of one tree are equal in this form."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from ckpttool.editing import below
from ckpttool.model import Blob, Call, Checkpoint, Global, Mapping, Node, Scalar, Sequence, Span, Tensor, Value

Label: TypeAlias = "tuple[object, ...]"


def canonical(checkpoint: Checkpoint, read: Callable[[Span], bytes]) -> list[Label]:
    """The tree from its root, one item for each node that has an identity, and the storages that it looks into.

    Values, names, byte strings and empty tuples count by what they are; numbers of nodes and storages by first mention;
    keys, spans and checksums not at all. Floats are compared by their bits. Linear, any depth.
    """
    if checkpoint.root is None:
        return []
    return _Canon(checkpoint, read).tree(checkpoint.root)


class _Canon:
    def __init__(self, checkpoint: Checkpoint, read: Callable[[Span], bytes]) -> None:
        self.nodes = checkpoint.nodes
        self.storages = checkpoint.storages
        self.read = read
        self.places: dict[int, int] = {}
        self.homes: dict[int, int] = {}

    def tree(self, root: int) -> list[Label]:
        stack, order = [root], list[int]()
        while stack:
            index = stack.pop()
            if index in self.places or self.leaf(self.nodes[index]) is not None:
                continue
            self.places[index] = len(order)
            order.append(index)
            stack.extend(reversed(below(self.nodes[index])))
        found = [self.label(root), *(self.content(self.nodes[index]) for index in order)]
        storages = [self.storages[index] for index in self.homes]
        return [*found, *(("storage", s.dtype.name, s.nbytes, s.device) for s in storages)]

    def leaf(self, node: Node) -> Label | None:
        """What a node without an identity says; None for one that has it."""
        if isinstance(node, Value):
            return ("value", type(node.value).__name__, _bits(node.value)) if node.call is None else None
        if isinstance(node, Blob):
            return "value", "bytes", self.read(node.span)
        if isinstance(node, Global):
            return "global", node.module, node.name
        if isinstance(node, Sequence) and node.kind == "tuple" and not node.items:
            return ("tuple",)
        if isinstance(node, Tensor) and node.form == "storage":
            return self.tensor(node)
        return None

    def label(self, index: int | None) -> Label:
        if index is None:
            return ()
        return self.leaf(self.nodes[index]) or ("node", self.places[index])

    def labels(self, indices: tuple[int, ...]) -> Label:
        return tuple([self.label(index) for index in indices])

    def content(self, node: Node) -> Label:
        if isinstance(node, Mapping):
            pairs = self.labels(node.keys), self.labels(node.values)
            return node.kind, *pairs, self.label(node.state), self.labels(node.extra)
        if isinstance(node, Sequence):
            return node.kind, self.labels(node.items), self.label(node.state)
        if isinstance(node, Call):
            given = self.labels(node.args), self.label(node.state), self.labels(node.items)
            return node.how, node.dotted, *given, self.labels(node.keys), self.labels(node.values)
        if isinstance(node, Tensor):
            return self.tensor(node)
        assert isinstance(node, Value)
        return "value", _bits(node.value), self.label(node.call)

    def tensor(self, node: Tensor) -> Label:
        home = -1 if node.storage is None else self.homes.setdefault(node.storage, len(self.homes))
        geometry = node.dtype.name, node.shape, node.stride, node.offset, home
        parts = tuple((name, self.label(part)) for name, part in node.parts)
        return "tensor", *geometry, node.requires_grad, node.layout, node.form, parts, self.label(node.call)


def _bits(value: Scalar) -> object:
    if isinstance(value, complex):
        return struct.pack(">dd", value.real, value.imag)
    return struct.pack(">d", value) if isinstance(value, float) else value
