"""From what a reader described back to plain values that can be edited and written again."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from ckpttool.dtypes import DTYPES
from ckpttool.model import Blob, Call, Checkpoint, Global, Mapping, Sequence, Span, Tensor, Value
from ckpttool.source import Source
from ckpttool.testing import plain


class Unthawable(Exception):
    """The tree holds something that plain values cannot say: what, in words."""


def thaw(checkpoint: Checkpoint, source: Source) -> Any:
    """The tree as plain values; what was shared is shared. Reads the bytes of every storage.

    Raises ``Unthawable`` for what has no stand-in: cycles, keys set twice, calls but REDUCE and NEWOBJ.
    """
    if checkpoint.root is None:
        raise Unthawable("there is no tree")
    return _Thaw(checkpoint, source).value(checkpoint.root)


class _Thaw:
    def __init__(self, checkpoint: Checkpoint, source: Source) -> None:
        self.checkpoint = checkpoint
        self.source = source
        self.made: dict[int, Any] = {}
        self.open: set[int] = set()
        self.storages: dict[int, plain.Storage] = {}

    def value(self, index: int) -> Any:
        """The node at ``index``, made once."""
        if index in self.open:
            raise Unthawable("a container that holds itself")
        if index not in self.made:
            self.open.add(index)
            self.made[index] = self._make(index)
            self.open.discard(index)
        return self.made[index]

    def _make(self, index: int) -> Any:
        node = self.checkpoint.nodes[index]
        if isinstance(node, Value):
            return node.value
        if isinstance(node, Blob):
            return self._bytes(node.span)
        if isinstance(node, Global):
            return plain.Global(node.module, node.name)
        if isinstance(node, Tensor):
            return self._tensor(node)
        if isinstance(node, Mapping):
            return self._mapping(node)
        return self._sequence(node) if isinstance(node, Sequence) else self._call(node)

    def _mapping(self, node: Mapping) -> Any:
        if node.kind not in ("dict", "OrderedDict"):
            raise Unthawable(f"a {node.kind}")
        found: dict[Any, Any] = {} if node.kind == "dict" else OrderedDict()
        if node.state is not None:
            found = plain.StateDict()
            found.state = self.value(node.state)
        found.update(self._items(node.keys, node.values))
        return found

    def _items(self, keys: tuple[int, ...], values: tuple[int, ...]) -> dict[Any, Any]:
        pairs = {self.value(key): self.value(value) for key, value in zip(keys, values, strict=True)}
        if len(pairs) != len(keys):
            raise Unthawable("a key that is set twice")
        return pairs

    def _sequence(self, node: Sequence) -> Any:
        kinds = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
        if node.kind not in kinds or node.state is not None:
            raise Unthawable(f"a {node.kind} with attributes")
        return kinds[node.kind](self.value(item) for item in node.items)

    def _call(self, node: Call) -> plain.Call:
        if node.how not in ("REDUCE", "NEWOBJ"):
            raise Unthawable(f"{node.dotted} built by {node.how}")
        return plain.Call(
            plain.Global(node.module, node.name),
            tuple(self.value(arg) for arg in node.args),
            None if node.state is None else self.value(node.state),
            [self.value(item) for item in node.items],
            self._items(node.keys, node.values),
            node.how,
        )

    def _tensor(self, node: Tensor) -> Any:
        if node.call is not None:
            return self.value(node.call)
        if node.storage is None:
            raise Unthawable(f"a {node.layout} tensor")
        storage = self._storage(node.storage)
        if node.form == "storage":
            return storage
        return plain.Tensor(storage, node.shape, node.stride, node.offset, node.requires_grad, node.dtype)

    def _storage(self, index: int) -> plain.Storage:
        if index not in self.storages:
            kept = self.checkpoint.storages[index]
            data = kept.inline if kept.span is None else self._bytes(kept.span)
            untyped = kept.dtype == DTYPES["uint8"] and self._wider(index)
            cls = plain.Global("torch.storage", "UntypedStorage") if untyped else None
            self.storages[index] = plain.Storage(data or b"", kept.dtype, kept.device, cls=cls)
        return self.storages[index]

    def _wider(self, index: int) -> bool:
        """Whether a tensor of another type looks into this storage: then it was untyped."""
        nodes = self.checkpoint.nodes
        return any(isinstance(n, Tensor) and n.storage == index and n.dtype != DTYPES["uint8"] for n in nodes)

    def _bytes(self, span: Span) -> bytes:
        return self.source.read(span.start, span.nbytes)
