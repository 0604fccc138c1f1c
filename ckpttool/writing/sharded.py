"""Several files and the index that says which tensor is in which, as huggingface_hub splits and names them.

Source: ``split_state_dict_into_shards_factory`` (``serialization/_base.py``) and ``save_torch_state_dict``
(``serialization/_torch.py``) of huggingface_hub 1.x.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from ckpttool.draft import Draft
from ckpttool.editing import Editor
from ckpttool.errors import UsageError, printable
from ckpttool.frozen import dataclass
from ckpttool.model import Json
from ckpttool.stamps import note_of
from ckpttool.writing import safetensors
from ckpttool.writing.flat import Named, flatten
from ckpttool.writing.losses import Loss

if TYPE_CHECKING:
    from ckpttool.writing.streams import Sink

NAME = "sharded"
SUFFIXES = (".safetensors.index.json", ".bin.index.json")
INDEX = ".index.json"

Kind: TypeAlias = Literal["safetensors", "bin"]
STEMS: dict[Kind, str] = {"safetensors": "model", "bin": "pytorch_model"}

MAX_SHARD_SIZE = 5_000_000_000
_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3}


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its name, its tensors' names and their bytes, and how it is written."""

    name: str
    keys: tuple[str, ...]
    nbytes: int
    draft: Draft
    write: Callable[[Sink], None]
    layout: safetensors.Layout | None = None


@dataclass(frozen=True, slots=True)
class ShardSet:
    """All files. ``index`` is None where one file holds everything, as huggingface_hub has it."""

    shards: tuple[Shard, ...]
    index_name: str
    index: bytes | None
    losses: tuple[Loss, ...]


def size_of(text: str) -> int:
    """Bytes of a size such as ``5GB``, ``500MB`` or ``1000``; units are decimal. Raises ``UsageError``."""
    word = text.strip().upper()
    unit = _UNITS.get(word[-2:], 1)
    number = word if unit == 1 else word[:-2]
    try:
        found = int(float(number) * unit)
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise UsageError(f"'{printable(text)}' is no size of a shard; write it like 5GB, 500MB or 100KB")
    return found


def plan(draft: Draft, kind: Kind = "safetensors", stem: str = "", max_shard_size: int = MAX_SHARD_SIZE) -> ShardSet:
    """Which tensors go into which file, and the index. ``stem`` is what file names begin with. Pure."""
    stem = stem or STEMS[kind]
    flat = flatten(draft, pickled=kind == "bin")
    if kind == "bin":
        items, repeated, losses = flat.items, {}, flat.losses
    else:
        laid = safetensors.lay_out(draft, flat)
        chosen = {item.name for item in laid.items}
        items = tuple(item for item in flat.items if item.name in chosen)
        repeated = {k: v for k, v in laid.metadata.items() if k not in chosen and v in chosen}
        losses = laid.losses
    groups = split(items, _sizes(draft, items, kind), max_shard_size, ties=kind == "bin")
    names = _names(stem, kind, len(groups))
    noted = _note(draft)
    extra = {**repeated, **noted} if len(groups) == 1 else {}
    shards = tuple(_shard(draft, kind, name, group, extra) for name, group in zip(names, groups, strict=True))
    total = sum(_total(draft, group, kind) for group in groups)
    index = None if len(groups) == 1 else _index({"total_size": total, **repeated, **noted}, shards)
    read = [item.name for shard, group in zip(shards, groups, strict=True) for item in _order(shard, group)]
    kept = tuple(loss for loss in losses if loss != safetensors.REORDERED)
    reordered = () if read == [item.name for item in items] else (safetensors.REORDERED,)
    return ShardSet(shards, f"{stem}.{kind}{INDEX}", index, kept + reordered)


def _note(draft: Draft) -> dict[str, str]:
    """The note of the migrations that the draft went through: in the index, or in the only file."""
    noted = note_of(draft.checkpoint.metadata)
    return {safetensors.MIGRATIONS: noted} if noted else {}


def _order(shard: Shard, group: Sequence[Named]) -> Sequence[Named]:
    """A shard's tensors as they are read."""
    return group if shard.layout is None else shard.layout.items


def split(items: Sequence[Named], sizes: dict[str, int], most: int, *, ties: bool = False) -> list[list[Named]]:
    """Fill shards in the order of keys, a new one where a tensor would tip the last over ``most`` bytes.

    A larger tensor has a shard of its own. With ``ties``, names that share a storage follow the first of them.
    """
    shards: list[list[Named]] = []
    current: list[Named] = []
    filled = 0
    first: dict[int, Named] = {}
    followers: dict[str, list[Named]] = {}
    for item in items:
        storage = item.tensor.storage
        if ties and storage is not None and first.setdefault(storage, item) is not item:
            followers.setdefault(first[storage].name, []).append(item)
            continue
        nbytes = sizes[item.name]
        if nbytes > most:
            shards.append([item])
            continue
        if filled + nbytes > most:
            shards.append(current)
            current, filled = [], 0
        current.append(item)
        filled += nbytes
    if current or not shards:
        shards.append(current)
    for shard in shards:
        shard += [other for item in list(shard) for other in followers.get(item.name, ())]
    return shards


def _sizes(draft: Draft, items: Iterable[Named], kind: Kind) -> dict[str, int]:
    """Bytes that each tensor brings along: a pickled one its whole storage."""
    storages = draft.checkpoint.storages
    return {
        item.name: storages[item.tensor.storage].nbytes
        if kind == "bin" and item.tensor.storage is not None
        else item.tensor.nbytes
        for item in items
    }


def _total(draft: Draft, group: Sequence[Named], kind: Kind) -> int:
    sizes = _sizes(draft, group, kind)
    if kind == "safetensors":
        return sum(sizes.values())
    owners = {item.tensor.storage: item.name for item in reversed(group)}
    return sum(sizes[name] for name in owners.values())


def _names(stem: str, kind: Kind, count: int) -> list[str]:
    if count == 1:
        return [f"{stem}.{kind}"]
    return [f"{stem}-{number:05d}-of-{count:05d}.{kind}" for number in range(1, count + 1)]


def _index(metadata: dict[str, Json], shards: Iterable[Shard]) -> bytes:
    table: dict[str, Json] = {key: shard.name for shard in shards for key in shard.keys}
    return json.dumps({"metadata": metadata, "weight_map": table}, indent=2).encode()


def _shard(draft: Draft, kind: Kind, name: str, group: Sequence[Named], extra: dict[str, str]) -> Shard:
    keys = tuple(item.name for item in group)
    nbytes = sum(item.tensor.nbytes for item in group)
    if kind == "safetensors":
        layout = safetensors.Layout(safetensors.in_order(group), {**extra, **safetensors.FRESH})
        return Shard(name, keys, nbytes, draft, lambda sink: safetensors.write(draft, sink, layout=layout), layout)
    part = _part(draft, group)

    def write(sink: Sink) -> None:
        from ckpttool.writing import torch_zip

        torch_zip.write(part, sink)

    return Shard(name, keys, nbytes, part, write)


def _part(draft: Draft, group: Iterable[Named]) -> Draft:
    """A state dict of some of the tensors."""
    editor = Editor(draft.checkpoint, draft.contents)
    editor.root = editor.mapping((item.name, item.index) for item in group)
    return editor.finish()
