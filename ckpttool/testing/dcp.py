"""Distributed checkpoints from plain values, without torch: ``.metadata`` and data files as its writer has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ckpttool.formats.bare_pickle import read
from ckpttool.limits import DEFAULT
from ckpttool.source import Memory
from ckpttool.testing.plain import Call, Global, Pickled, Tensor, tensor
from ckpttool.testing.thaw import thaw
from ckpttool.testing.writers import torch_file

Cuts: TypeAlias = "list[tuple[tuple[int, ...], tuple[int, ...]]]"
"""Boxes of a tensor: where each begins, and its shape."""

MODULE = "torch.distributed.checkpoint.metadata"
METADATA = ".metadata"


@dataclass(slots=True)
class _Files:
    """Data files as they grow, and what the metadata will say."""

    ranks: int
    files: dict[str, bytearray] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)
    places: dict[Any, Any] = field(default_factory=dict)
    paths: dict[str, tuple[str | int, ...]] = field(default_factory=dict)

    def add(self, name: str, start: tuple[int, ...] | None, number: int, data: bytes) -> None:
        file = f"__{number % self.ranks}_0.distcp"
        held = self.files.setdefault(file, bytearray())
        index = {"fqn": name, "offset": None if start is None else size_of(start), "index": number}
        info = {"relative_path": file, "offset": len(held), "length": len(data)}
        place = made("torch.distributed.checkpoint.filesystem", "_StorageInfo", info)
        self.places[made(MODULE, "MetadataIndex", index)] = place
        held += data


def dcp_files(
    state: Mapping[str, Any], cut: Callable[[str, Tensor], Cuts] = lambda _, t: whole(t), *, ranks: int = 2
) -> dict[str, bytes]:
    """The files of a nested state dict, by name; ``cut`` says into which boxes each tensor goes.

    Chunks go to the ranks in turn. Boxes are not checked: holes and overlaps can be written.
    """
    found = _Files(ranks)
    for path, value in leaves(state):
        name = ".".join(map(str, path))
        found.paths[name] = path
        if not isinstance(value, Tensor):
            found.entries[name] = made(MODULE, "BytesStorageMetadata", None)
            found.add(name, None, 0, torch_file(value))
            continue
        boxes = cut(name, value)
        found.entries[name] = described(value, boxes)
        for number, (start, shape) in enumerate(boxes):
            found.add(name, start, number, torch_file(part(value, start, shape)))
    metadata = {
        "state_dict_metadata": found.entries,
        "planner_data": found.paths,
        "storage_data": found.places,
        "storage_meta": made(MODULE, "StorageMeta", {"checkpoint_id": None, "save_id": "1", "modules": []}),
        "version": "1.0.0",
    }
    root = made(MODULE, "Metadata", metadata)
    files = {name: bytes(data) for name, data in found.files.items()}
    return {METADATA: Pickled.dumps(root)[0], **files}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """What torch saves one by one: dicts are opened, and lists that hold tensors or containers."""
    if isinstance(value, dict):
        return [leaf for key, below in value.items() for leaf in leaves(below, (*path, str(key)))]
    if isinstance(value, list) and any(isinstance(one, (Tensor, dict)) for one in value):
        return [leaf for place, below in enumerate(value) for leaf in leaves(below, (*path, place))]
    return [(path, value)]


def whole(value: Tensor) -> Cuts:
    """One box: all of it."""
    return [((0,) * len(value.shape), tuple(value.shape))]


def rows(value: Tensor, ranks: int) -> Cuts:
    """As FSDP cuts: along the first dimension, the last piece short, none for ranks that get nothing."""
    if not value.shape:
        return whole(value)
    each = max(1, -(-value.shape[0] // ranks))
    rest = tuple(value.shape[1:])
    starts = range(0, value.shape[0], each)
    return [((at, *(0 for _ in rest)), (min(each, value.shape[0] - at), *rest)) for at in starts] or whole(value)


def part(value: Tensor, start: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """A box of a row-major tensor, as a tensor of its own."""
    width = value.kind.itemsize
    array = np.frombuffer(value.storage.data, f"V{width}", math.prod(value.shape)).reshape(value.shape)
    box = array[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
    return tensor(shape, np.ascontiguousarray(box).tobytes(), value.kind.name)


def described(value: Tensor, boxes: Cuts) -> Call:
    """A tensor's entry in ``state_dict_metadata``."""
    layout = Call(Global("torch.serialization", "_get_layout"), ("torch.strided",))
    order = Call(Global(MODULE, "_MEM_FORMAT_ENCODING"), (0,))
    properties = (Global("torch", value.kind.name), layout, False, order, False)
    chunks = [
        made(MODULE, "ChunkStorageMetadata", {"offsets": size_of(start), "sizes": size_of(shape)})
        for start, shape in boxes
    ]
    fields = {
        "properties": made(MODULE, "TensorProperties", properties),
        "size": size_of(value.shape),
        "chunks": chunks,
    }
    return made(MODULE, "TensorStorageMetadata", fields)


def made(module: str, name: str, state: Any) -> Call:
    """An object of a data class."""
    return Call(Global(module, name), (), state, how="NEWOBJ")


def size_of(sizes: tuple[int, ...]) -> Call:
    """``torch.Size``."""
    return Call(Global("torch", "Size"), (tuple(sizes),))


# --- editing ---------------------------------------------------------------------------------------------


def edited(files: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """The files with the fields of their metadata changed in place."""
    source = Memory(files[METADATA], METADATA)
    root = thaw(read(source, DEFAULT), source)
    change(root.state)
    return {**files, METADATA: Pickled.dumps(root)[0]}


def places(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Where the chunks of a name lie: the fields of each, to be changed."""
    found: dict[Any, Any] = fields["storage_data"]
    return [info.state for index, info in found.items() if index.state["fqn"] == name]


def chunks(fields: dict[str, Any], name: str) -> list[Any]:
    """The boxes of a tensor, to be changed."""
    listed: list[Any] = fields["state_dict_metadata"][name].state["chunks"]
    return listed


__all__ = ["chunks", "dcp_files", "edited", "leaves", "part", "places", "rows", "whole"]
