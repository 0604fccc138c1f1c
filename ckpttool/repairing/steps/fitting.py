"""Tensors and storages that agree: records as long as they are declared, no view that leaves its storage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ckpttool.draft import Content, Copied, Draft, Held
from ckpttool.dtypes import BYTE
from ckpttool.editing import Editor, below
from ckpttool.model import Checkpoint, Span, Storage, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Loss, Mended
from ckpttool.repairing.removing import orphaned, remove, take_aside
from ckpttool.repairing.steps.salvage import FRESH, SPARED

_TYPED = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_V3 = "torch._utils._rebuild_tensor_v3"
_MOST = 1 << 62
"""Elements, strides and offsets that torch can count, and twice as much."""


def mend(case: Case) -> Mended:
    """Cut or shrink storages to what is there, leave out tensors that do not fit, give mixed storages one class."""
    checkpoint = case.draft.checkpoint
    editor = Editor(checkpoint, case.draft.contents)
    steps = [*_fit_storages(editor, case.draft), *_conflicts(checkpoint)]
    _untype(editor, checkpoint)
    wrong = {**dict(_misfits(editor, checkpoint)), **dict(_unsound(case))}
    gone = _holders(checkpoint, set(wrong))
    if not steps and not gone:
        return Mended(case.draft)
    stale = orphaned(checkpoint, case.layout, gone.keys())
    remove(editor, gone.keys())
    aside = take_aside(editor, stale)
    lost = []
    for entry, tensor in checkpoint.tensors():
        if entry.index in gone:
            reason = wrong[gone[entry.index]]
            lost.append(Loss(entry.key, reason, tensor.numel, tensor.numel))
            steps.append(Step("drop", (entry.key,), (), reason, reason))
    steps += [
        Step("set-aside", (key,), (aside[index],), SPARED) if index in aside else Step("drop", (key,), (), FRESH, FRESH)
        for index, key in stale.items()
    ]
    rest = tuple(damage for damage in checkpoint.damage if damage.rule != "storage-conflict")
    return Mended(editor.finish(damage=rest), tuple(steps), tuple(lost))


# --- storages ------------------------------------------------------------------------------------------------


def _fit_storages(editor: Editor, draft: Draft) -> Iterator[Step]:
    """Make what is declared and what is there the same number of bytes, the smaller of the two."""
    reached = _reached(draft.checkpoint)
    for index, (storage, content) in enumerate(zip(draft.checkpoint.storages, draft.contents, strict=True)):
        have = content.nbytes
        if have == storage.nbytes or index not in reached:
            continue
        width = max(1, storage.dtype.itemsize)
        fits = min(have, storage.nbytes) // width * width
        cut = _first_bytes(content, fits)
        if cut is None:
            continue
        editor.storages[index] = replace(storage, nbytes=fits, checksum=None)
        editor.contents[index] = cut
        where = f"storage {storage.key}" if storage.key.isalnum() else "a storage"
        why = f"{where} is declared as {storage.nbytes} bytes and has {have}: the first {fits} are kept"
        yield Step("fit", (), (), why)


def _reached(checkpoint: Checkpoint) -> set[int]:
    return {n.storage for n in checkpoint.nodes if isinstance(n, Tensor) and n.storage is not None}


def _first_bytes(content: Content, nbytes: int) -> Content | None:
    """The beginning of a content; None of one that is computed or deflated."""
    if content.nbytes == nbytes:
        return content
    if isinstance(content, Held):
        return Held(content.data[:nbytes])
    if not isinstance(content, Copied) or content.inflates_to is not None:
        return None
    spans: list[Span] = []
    left = nbytes
    for span in content.spans:
        spans.append(Span(span.source, span.start, min(span.stop, span.start + left)))
        left -= spans[-1].nbytes
    return Copied(tuple(spans))


def _conflicts(checkpoint: Checkpoint) -> Iterator[Step]:
    """Storages that the tree declares in two ways: written again, they are declared in one."""
    for damage in checkpoint.damage:
        if damage.rule == "storage-conflict":
            yield Step("respell", (), (), f"{damage.message}: written as one storage of the bytes that are there")


def _untype(editor: Editor, checkpoint: Checkpoint) -> None:
    """A storage that is declared in two types is one of bytes whose tensors say their types themselves."""
    types: dict[int, set[str]] = {}
    for node in checkpoint.nodes:
        if isinstance(node, Tensor) and node.storage is not None and node.form in _TYPED:
            types.setdefault(node.storage, set()).add(node.dtype.name)
    mixed = {index for index, names in types.items() if len(names) > 1}
    for index in mixed:
        editor.storages[index] = replace(editor.storages[index], dtype=BYTE)
    for index, node in enumerate(checkpoint.nodes):
        if isinstance(node, Tensor) and node.storage in mixed and node.form in _TYPED:
            editor.replace(index, replace(node, form=_V3))


# --- tensors -------------------------------------------------------------------------------------------------


def _misfits(editor: Editor, checkpoint: Checkpoint) -> Iterator[tuple[int, str]]:
    """Tensors that do not fit, by node, and why."""
    for index, node in enumerate(checkpoint.nodes):
        if isinstance(node, Tensor):
            storage = None if node.storage is None else editor.storages[node.storage]
            why = misfit(node, storage)
            if why:
                yield index, why


def _unsound(case: Case) -> Iterator[tuple[int, str]]:
    """Tensors whose content rules them out."""
    for entry, _ in case.draft.checkpoint.tensors() if case.unsound else ():
        if entry.key in case.unsound:
            yield entry.index, case.unsound[entry.key]


def misfit(tensor: Tensor, storage: Storage | None) -> str:
    """Why a tensor cannot be built in its storage, in words; empty where it can."""
    if any(size < 0 for size in tensor.shape) or math.prod(size or 1 for size in tensor.shape) >= 2 * _MOST:
        return f"its shape {list(tensor.shape)[:8]} is none that a tensor can have"
    if storage is None:
        return ""
    if len(tensor.shape) != len(tensor.stride):
        return f"it has {len(tensor.shape)} sizes and {len(tensor.stride)} strides"
    if tensor.offset < 0 or any(step < 0 for step in tensor.stride):
        return "its offset or a stride is negative"
    # Packed types count several elements to a byte.
    needs = (tensor.offset + tensor.extent) * tensor.dtype.bits
    if max((tensor.offset, *tensor.stride)) >= 2 * _MOST or (tensor.numel and needs > storage.nbytes * 8):
        have = storage.nbytes * 8 // max(1, tensor.dtype.bits)
        return f"it needs {tensor.offset + tensor.extent} elements of its storage, which has {have}"
    return ""


def _holders(checkpoint: Checkpoint, wrong: set[int]) -> dict[int, int]:
    """Tensors of the tree that are, or are made of, one that does not fit: by node, the node that is wrong."""
    found: dict[int, int] = {}
    for index, node in enumerate(checkpoint.nodes):
        if not wrong or not isinstance(node, Tensor):
            continue
        stack, seen = [index], {index}
        while stack:
            here = stack.pop()
            if here in wrong:
                found[index] = here
                break
            fresh = [one for one in below(checkpoint.nodes[here]) if one not in seen]
            seen.update(fresh)
            stack.extend(fresh)
    return found
