"""What the real loader gives, against what was described: containers, order, values, sharing, bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckpttool.model import Blob, Checkpoint, Global, Mapping, Sequence, Tensor, Value
from ckpttool.source import Source
from ckpttool.testing.strategies.real import import_torch

KINDS = {"dict", "OrderedDict", "Counter", "defaultdict", "list", "tuple", "set", "frozenset", "deque"}


def differences(checkpoint: Checkpoint, source: Source, loaded: Any) -> list[str]:
    """Every way in which a checkpoint as described differs from the same file as loaded; empty if none.

    ``loaded`` is what ``torch.load`` or safetensors returned. Compared are container kinds, order, keys,
    plain values with their types, attributes of state dicts, and of tensors dtype, shape, stride, offset,
    requires_grad, which of them share a storage, and every byte of it. Objects of other classes are passed
    over. Needs torch.
    """
    if checkpoint.root is None:
        return ["nothing was described"]
    return list(_Comparison(checkpoint, source).compare(checkpoint.root, loaded, ""))


class _Comparison:
    def __init__(self, checkpoint: Checkpoint, source: Source) -> None:
        self.torch = import_torch()
        self.nodes = checkpoint.nodes
        self.storages = checkpoint.storages
        self.source = source
        self.pointers: dict[int, int] = {}
        self.checked: dict[int, list[str]] = {}

    def compare(self, index: int, loaded: Any, path: str) -> Iterator[str]:
        """The differences below one node."""
        node = self.nodes[index]
        if isinstance(node, Value):
            if type(node.value) is not type(loaded) or repr(node.value) != repr(loaded):
                yield f"{path}: {node.value!r} is {loaded!r}"
        elif isinstance(node, Blob):
            if self.source.read(node.span.start, node.span.nbytes) != bytes(loaded):
                yield f"{path}: other bytes"
        elif isinstance(node, Mapping):
            yield from self._mapping(node, loaded, path)
        elif isinstance(node, Sequence):
            yield from self._sequence(node, loaded, path)
        elif isinstance(node, Tensor):
            yield from self._tensor(node, loaded, path)
        elif isinstance(node, Global) and isinstance(loaded, self.torch.dtype) and node.dotted != str(loaded):
            yield f"{path}: {node.dotted} is {loaded}"

    def _mapping(self, node: Mapping, loaded: Any, path: str) -> Iterator[str]:
        if type(loaded).__name__ != node.kind or len(loaded) != len(node.keys):
            kind = type(loaded).__name__
            yield f"{path}: a {node.kind} of {len(node.keys)} is a {kind} of {_length(loaded)}"
            return
        for key, value, (real_key, real) in zip(node.keys, node.values, loaded.items(), strict=True):
            yield from self.compare(key, real_key, f"{path} key")
            yield from self.compare(value, real, f"{path}.{real_key}")
        if node.state is not None:
            yield from self.compare(node.state, vars(loaded), f"{path} attributes")

    def _sequence(self, node: Sequence, loaded: Any, path: str) -> Iterator[str]:
        kind = "tuple" if isinstance(loaded, self.torch.Size) else type(loaded).__name__
        if kind not in KINDS or kind != node.kind or len(loaded) != len(node.items):
            yield f"{path}: a {node.kind} of {len(node.items)} is a {kind} of {_length(loaded)}"
        elif node.kind in ("set", "frozenset"):
            if sorted(map(repr, loaded)) != sorted(map(self._spelled, node.items)):
                yield f"{path}: another set"
        else:
            for place, (item, real) in enumerate(zip(node.items, loaded, strict=True)):
                yield from self.compare(item, real, f"{path}[{place}]")

    def _spelled(self, index: int) -> str:
        """How Python prints the member of a set: a plain value, or a tuple of such."""
        node = self.nodes[index]
        if isinstance(node, Sequence):
            inner = ", ".join(self._spelled(item) for item in node.items)
            return f"({inner},)" if len(node.items) == 1 else f"({inner})"
        return repr(node.value) if isinstance(node, Value) else repr(node)

    # --- tensors -----------------------------------------------------------------------------------------

    def _tensor(self, node: Tensor, loaded: Any, path: str) -> Iterator[str]:
        if not isinstance(loaded, self.torch.Tensor):
            return
        ours: dict[str, object] = {"dtype": f"torch.{node.dtype.name}"}
        real: dict[str, object] = {"dtype": str(loaded.dtype)}
        if not loaded.is_nested:  # a nested tensor has one shape for each of its parts
            ours["shape"], real["shape"] = node.shape, tuple(loaded.shape)
        plain = node.storage is not None and node.layout == "strided"
        if plain:
            ours |= {"stride": node.stride, "offset": node.offset, "grad": node.requires_grad}
            real |= {"stride": loaded.stride(), "offset": loaded.storage_offset(), "grad": loaded.requires_grad}
            wrapped = node.form.startswith("torch._utils._rebuild_parameter")
            ours["Parameter"] = wrapped
            real["Parameter"] = isinstance(loaded, self.torch.nn.Parameter)
        for name, value in ours.items():
            if value != real[name]:
                yield f"{path}: {name} {value} is {real[name]}"
        if plain and node.storage is not None:
            yield from self._bytes(node.storage, loaded.untyped_storage(), path)

    def _bytes(self, index: int, loaded: Any, path: str) -> Iterator[str]:
        kept = self.storages[index]
        if loaded.device.type != "cpu" or kept.span is None or not loaded.nbytes():
            return
        pointer = loaded.data_ptr()
        if self.pointers.setdefault(pointer, index) != index:
            yield f"{path}: storage {kept.key} is that of storage {self.storages[self.pointers[pointer]].key}"
        if index not in self.checked:
            flat = self.torch.empty(0, dtype=self.torch.uint8).set_(loaded)
            same = flat.numpy().tobytes() == self.source.read(kept.span.start, kept.span.nbytes)
            self.checked[index] = [] if same else [f"{path}: other bytes in storage {kept.key}"]
        yield from self.checked[index]


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0
