"""Checkpoints built by hand from nested Python values, for tests that judge trees and need no file."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from typing import Any

from ckpttool.dtypes import DTYPES
from ckpttool.model import Call, Checkpoint, Mapping, Node, Sequence, Span, Storage, Tensor, Value


@dataclass(frozen=True, slots=True)
class T:
    """A tensor to be: its shape, element type, device; the same ``tie`` means the same storage."""

    shape: tuple[int, ...] = (4, 3)
    dtype: str = "float32"
    device: str = "cpu"
    tie: str = ""
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Attributes:
    """An object with attributes, such as ``argparse.Namespace``."""

    values: MappingABC[str, Any]
    name: str = "argparse.Namespace"


def checkpoint_of(value: Any, format: str = "torch-zip", files: tuple[str, ...] = ()) -> Checkpoint:  # noqa: A002
    """A ``Checkpoint`` whose tree is ``value``; a dict's ``_metadata`` becomes its state, as in torch."""
    builder = _Builder()
    root = builder.add(value)
    nodes, storages = tuple(builder.nodes), tuple(builder.storages)
    return Checkpoint("hand.pt", format, nodes, root, storages, files=files)


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.storages: list[Storage] = []
        self._ties: dict[str, int] = {}

    def add(self, value: Any) -> int:
        node = self._node(value)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _node(self, value: Any) -> Node:
        if isinstance(value, T):
            return self._tensor(value)
        if isinstance(value, MappingABC):
            return self._mapping(dict(value))
        if isinstance(value, (list, tuple)):
            return Sequence(type(value).__name__, tuple(self.add(item) for item in value))
        if isinstance(value, Attributes):
            module, _, name = value.name.rpartition(".")
            return Call("NEWOBJ", module, name, (), self.add(value.values))
        return Value(value)

    def _mapping(self, value: dict[Any, Any]) -> Mapping:
        metadata = value.pop("_metadata", None)
        keys = tuple(self.add(key) for key in value)
        state = None
        if metadata is not None:
            self.nodes.append(Mapping("dict", (self.add("_metadata"),), (self.add(metadata),)))
            state = len(self.nodes) - 1
        return Mapping("dict", keys, tuple(self.add(item) for item in value.values()), state)

    def _tensor(self, value: T) -> Tensor:
        dtype = DTYPES[value.dtype]
        storage = self._ties.get(value.tie) if value.tie else None
        steps, step = [], 1
        for size in reversed(value.shape):
            steps.append(step)
            step *= max(size, 1)
        tensor = Tensor(dtype, value.shape, tuple(reversed(steps)), 0, len(self.storages))
        if storage is not None:
            return Tensor(dtype, value.shape, tensor.stride, 0, storage)
        nbytes = tensor.nbytes + value.spare
        self.storages.append(
            Storage(str(len(self.storages)), dtype, nbytes, Span("hand.pt", 0, nbytes), device=value.device)
        )
        if value.tie:
            self._ties[value.tie] = len(self.storages) - 1
        return tensor
