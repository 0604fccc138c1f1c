"""A draft from another format as torch would spell it: forms of tensors, shared names. Pure."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.draft import Draft
from ckpttool.dtypes import BYTE, DTYPES, STORAGE_CLASSES, DType
from ckpttool.editing import Editor
from ckpttool.model import Checkpoint, Json, Mapping, Storage, Tensor
from ckpttool.stamps import KEY, note_of
from ckpttool.tree import key_text
from ckpttool.writing.losses import Kind, Loss

TORCH = ("torch-zip", "torch-legacy", "pickle")
"""Formats whose trees are spelled as torch spells them already."""

FLAT = "safetensors"
FORMLESS = (FLAT, "torch-tar")
"""How readers call the form of a tensor that no function rebuilds."""

_CLASSES = {dtype.name for dtype in STORAGE_CLASSES.values()}
"""Element types that have a storage class; tensors of the others say their type themselves (torch 2.1)."""


def for_torch(draft: Draft) -> Draft:
    """The draft as a tree that torch can load; one that came from torch is returned as it is.

    Names that ``__metadata__`` records as removed (``save_model`` of safetensors) share their tensor again.
    """
    checkpoint = draft.checkpoint
    if checkpoint.format in TORCH:
        return draft
    editor = Editor(checkpoint, draft.contents)
    for index, node in enumerate(checkpoint.nodes):
        if isinstance(node, Tensor) and node.form in FORMLESS and node.storage is not None:
            editor.replace(index, _spelled(node))
            editor.storages[node.storage] = _classed(editor.storages[node.storage], node.dtype)
    _tie(editor, checkpoint)
    noted = note_of(checkpoint.metadata)
    return editor.finish(metadata={"migrations": noted} if noted else {})


def losses(draft: Draft) -> tuple[Loss, ...]:
    """What of another format's own metadata and types has no place in a file of torch."""
    if draft.checkpoint.format in TORCH:
        return ()
    shared = recorded_ties(draft.checkpoint)
    found = [
        Loss(f"__metadata__.{key}", "str", "a file of torch has no place for it", _kind(key))
        for key in _recorded(draft.checkpoint)
        if key not in shared and key != KEY
    ]
    return tuple(found)


def _kind(key: str) -> Kind:
    return "form" if key == "format" else "content"


def recorded_ties(checkpoint: Checkpoint) -> dict[str, str]:
    """Names that are not among the keys, and the key that the metadata gives for each."""
    root = None if checkpoint.root is None else checkpoint.nodes[checkpoint.root]
    if not isinstance(root, Mapping):
        return {}
    names = {key_text(checkpoint.nodes[index]) for index in root.keys}
    found = _recorded(checkpoint)
    return {name: kept for name, kept in found.items() if name not in names and kept in names}


def _recorded(checkpoint: Checkpoint) -> dict[str, str]:
    """The strings that a safetensors file, or the shards and the index of a set, say beside the tensors."""
    tables: list[Json] = []
    if checkpoint.format == FLAT:
        tables.append(checkpoint.metadata.get("metadata"))
    elif checkpoint.format == "sharded":
        shards = checkpoint.metadata.get("shards")
        inner = shards.values() if isinstance(shards, dict) else ()
        tables += [one.get("metadata") for one in inner if isinstance(one, dict)]
        tables.append(checkpoint.metadata.get("index_metadata"))
    pairs = [pair for table in tables if isinstance(table, dict) for pair in table.items()]
    return {key: value for key, value in pairs if isinstance(value, str)}


def _tie(editor: Editor, checkpoint: Checkpoint) -> None:
    shared = recorded_ties(checkpoint)
    root = None if checkpoint.root is None else checkpoint.nodes[checkpoint.root]
    if not shared or not isinstance(root, Mapping) or checkpoint.root is None:
        return
    places = {key_text(checkpoint.nodes[k]): v for k, v in zip(root.keys, root.values, strict=True)}
    keys = tuple(editor.value(name) for name in shared)
    # Nodes of their own: torch.save spells two names of one storage as two tensors.
    values = tuple(editor.put(editor.nodes[places[kept]]) for kept in shared.values())
    editor.replace(checkpoint.root, replace(root, keys=root.keys + keys, values=root.values + values))


def _spelled(tensor: Tensor) -> Tensor:
    """The tensor as the function that torch would choose rebuilds it."""
    version = "v2" if tensor.dtype.name in _CLASSES else "v3"
    made = replace(tensor, form=f"torch._utils._rebuild_tensor_{version}")
    if tensor.dtype.name != "float4_e2m1fn" or not tensor.shape or tensor.shape[-1] % 2:
        return made
    shape = (*tensor.shape[:-1], tensor.shape[-1] // 2)
    return replace(made, dtype=DTYPES["float4_e2m1fn_x2"], shape=shape, stride=row_major(shape))


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor without gaps, as torch counts them: an empty dimension as one of size 1."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _classed(storage: Storage, dtype: DType) -> Storage:
    return replace(storage, dtype=dtype if dtype.name in _CLASSES else BYTE)
