"""What a checkpoint holds, counted: tensors by key and section, bytes that sections own, ties. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from fnmatch import translate

from ckpttool.dtypes import BYTE
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint, Storage, Tensor
from ckpttool.profiles.parameters import is_buffer


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor under one key. A tensor that two keys reach is two items.

    ``numel`` counts its elements; ``nbytes`` is its logical content as the file holds it, 0 for meta tensors.
    """

    key: str
    path: tuple[str, ...]
    index: int
    tensor: Tensor
    section: str
    numel: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """The selected tensors and what was counted over them.

    ``owned`` has the bytes of storages by the section that looks at them, ``unreachable`` those that no
    selected tensor looks at; ``ties`` groups of keys over the same bytes; ``whole``: nothing was left out.
    """

    items: tuple[Item, ...]
    owned: Mapping[str, int] = field(hash=False)
    unreachable: int
    ties: tuple[tuple[str, ...], ...]
    parameters: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tensors a user asked for: globs over keys (``*`` crosses dots) and names of sections."""

    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.only or self.ignore or self.sections)


EVERYTHING = Selection()


def take(checkpoint: Checkpoint, layout: Layout, selection: Selection = EVERYTHING) -> Inventory:
    """Count the selected tensors, each question once; linear in tensors."""
    found = items(checkpoint, layout, selection)
    owned, rest = owned_bytes(checkpoint, found)
    return Inventory(tuple(found), owned, rest, ties(found), parameters(found), selection.everything)


def items(checkpoint: Checkpoint, layout: Layout, selection: Selection = EVERYTHING) -> list[Item]:
    """The selected tensors in the file's order."""
    wanted = _matcher(selection.only) if selection.only else None
    unwanted = _matcher(selection.ignore) if selection.ignore else None
    found = []
    for entry, tensor in checkpoint.tensors():
        key = entry.key
        if (wanted and not wanted.match(key)) or (unwanted and unwanted.match(key)):
            continue
        section = layout.section_of(entry.path)
        if not selection.sections or section in selection.sections:
            numel = tensor.numel
            nbytes = stored_bytes(checkpoint, tensor) if tensor.parts else _own_bytes(tensor, numel)
            found.append(Item(key, entry.path, entry.index, tensor, section, numel, nbytes))
    return found


def components(checkpoint: Checkpoint, tensor: Tensor) -> list[Tensor]:
    """The strided tensors that a tensor is made of: itself, or the parts of a sparse or nested one."""
    if not tensor.parts:
        return [tensor] if tensor.storage is not None else []
    stack, found = [tensor], []
    # Hostile files nest parts in parts without end.
    for _ in range(1000):
        if not stack:
            break
        one = stack.pop()
        if one.storage is not None:
            found.append(one)
        nodes = (checkpoint.nodes[index] for _, index in one.parts)
        stack.extend(node for node in nodes if isinstance(node, Tensor))
    return found


def stored_bytes(checkpoint: Checkpoint, tensor: Tensor) -> int:
    """Bytes of a tensor's logical content as the file holds it; 0 for meta tensors."""
    return sum(part.nbytes for part in components(checkpoint, tensor))


def _own_bytes(tensor: Tensor, numel: int) -> int:
    return tensor.dtype.nbytes(numel) if tensor.storage is not None else 0


def present(storage: Storage) -> int:
    """Bytes of a storage that are in the file, whatever the tree declares."""
    if storage.inline is not None:
        return len(storage.inline)
    return min(storage.nbytes, storage.span.nbytes) if storage.span else 0


def owned_bytes(checkpoint: Checkpoint, found: Sequence[Item]) -> tuple[Counter[str], int]:
    """Bytes of storages by the section that looks at them, each byte once; and those that nothing looks at.

    Where two sections share bytes, the one that comes first in a storage has them.
    """
    sizes = [present(storage) for storage in checkpoint.storages]
    geometry = _Geometry()
    looks = [
        (part.storage, *_byte_range(part, geometry[part.shape, part.stride][1]), item.section)
        for item in found
        for part in components(checkpoint, item.tensor)
        if part.storage is not None and 0 <= part.storage < len(sizes)
    ]
    owned: Counter[str] = Counter()
    here, edge = -1, 0
    for index, start, stop, section in sorted(looks):
        if index != here:
            here, edge = index, 0
        stop = min(stop, sizes[index])
        if stop > max(start, edge):
            owned[section] += stop - max(start, edge)
            edge = stop
    return owned, sum(sizes) - sum(owned.values())


def storage_name(checkpoint: Checkpoint, item: Item) -> str | None:
    """The name of the storage that a tensor looks into; None for one that has none of its own."""
    index = item.tensor.storage
    if index is None or index >= len(checkpoint.storages):
        return None
    storage = checkpoint.storages[index]
    return storage.record or storage.key


def ties(found: Sequence[Item]) -> tuple[tuple[str, ...], ...]:
    """Keys that look at the very same bytes, group by group, in the file's order."""
    firsts: dict[tuple[int, int, int], str] = {}
    groups: dict[tuple[int, int, int], list[str]] = {}
    for item in found:
        tensor = item.tensor
        if tensor.storage is not None and item.numel:
            place = (tensor.storage, tensor.offset, item.nbytes)
            if place in firsts:
                groups.setdefault(place, [firsts[place]]).append(item.key)
            else:
                firsts[place] = item.key
    return tuple(tuple(groups[place]) for place in firsts if place in groups)


def parameters(found: Sequence[Item]) -> int:
    """Elements of floating or complex tensors among the weights but their buffers; ties count once."""
    seen: dict[object, int] = {}
    geometry = _Geometry()
    for item in found:
        tensor = item.tensor
        if item.section != "weights":
            continue
        kind = tensor.dtype.kind
        real = kind in ("float", "complex") and not is_buffer(item.key, tensor)
        if real or kind in ("quantized", "bits"):
            numel, extent = geometry[tensor.shape, tensor.stride]
            place = (tensor.storage, tensor.offset, extent) if tensor.storage is not None else item.index
            seen[place] = max(seen.get(place, 0), numel)
    return sum(seen.values())


class _Geometry(dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, int]]):
    """Elements and extent by shape and stride, of which a model has few however many tensors it has."""

    def __missing__(self, form: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[int, int]:
        tensor = Tensor(BYTE, *form, 0, None)
        self[form] = tensor.numel, tensor.extent
        return self[form]


def _byte_range(tensor: Tensor, extent: int) -> tuple[int, int]:
    bits = tensor.dtype.bits
    start = max(0, tensor.offset * bits // 8)
    return start, max(start, ((tensor.offset + extent) * bits + 7) // 8)


def _matcher(globs: Collection[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))
