"""Chunked tensors as whole ones, for formats that know nothing of chunks: named, and read where they were mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckpttool.boxes import Box, is_row_run, start_of
from ckpttool.draft import Content, Copied, Draft, Held, Input, Made
from ckpttool.dtypes import BYTE, STORAGE_CLASSES
from ckpttool.editing import Editor
from ckpttool.expressions import Applied, Form, Leaf
from ckpttool.model import Checkpoint, Span, Storage, Tensor
from ckpttool.ops.paste import Paste
from ckpttool.writing.dense import cut, joined

_CLASSES = {dtype.name for dtype in STORAGE_CLASSES.values()}


def gathered(draft: Draft, *, runs: bool = True) -> Draft:
    """The draft with a storage of its own for each chunked tensor; one without any is returned as it is.

    Nodes and storages keep their indices. Boxes that are runs of rows are copied one after the other; others are
    pasted when they are written, which takes the memory of that tensor twice. Without ``runs`` all are pasted: as
    expressions, on which others may build.
    """
    checkpoint = draft.checkpoint
    wanted = [
        (index, node)
        for index, node in enumerate(checkpoint.nodes)
        if isinstance(node, Tensor) and node.layout == "chunked"
    ]
    if not wanted:
        return draft
    editor = Editor(checkpoint, draft.contents)
    for index, tensor in wanted:
        parts = _boxes(checkpoint, tensor)
        content = _content(draft, tensor, parts, runs)
        kind = tensor.dtype if tensor.dtype.name in _CLASSES else BYTE
        storage = editor.storage(Storage("", kind, 0), content)
        editor.replace(index, replace(tensor, layout="strided", storage=storage, parts=()))
    changed = replace(checkpoint, nodes=tuple(editor.nodes), storages=tuple(editor.storages))
    return Draft(changed, tuple(editor.contents))


def _boxes(checkpoint: Checkpoint, tensor: Tensor) -> list[tuple[Box, Tensor]]:
    found = []
    for name, index in tensor.parts:
        start, part = start_of(name), checkpoint.nodes[index]
        if isinstance(part, Tensor) and start is not None:
            found.append((Box(start, part.shape), part))
    return sorted(found, key=lambda one: one[0].start)


def _content(draft: Draft, tensor: Tensor, parts: Sequence[tuple[Box, Tensor]], runs: bool) -> Content:
    if not tensor.numel:
        return Copied(())
    copied = _copied(draft, tensor, parts) if runs else None
    if copied is not None:
        return copied
    form = Form(tensor.dtype, tensor.shape)
    leaves = tuple(Leaf(str(number)) for number in range(len(parts)))
    inputs = tuple(
        Input(leaf.name, part, _as_drafted(draft, part)) for leaf, (_, part) in zip(leaves, parts, strict=True)
    )
    paste = Paste(tensor.shape, tuple(box.start for box, _ in parts))
    return Made(Applied(paste, leaves), inputs, form)


def _copied(draft: Draft, tensor: Tensor, parts: Sequence[tuple[Box, Tensor]]) -> Copied | None:
    """The bytes as they lie, where the boxes laid end to end are the whole."""
    if not is_row_run([box for box, _ in parts], tensor.shape):
        return None
    spans: list[Span] = []
    for _, part in parts:
        storage = _storage(draft.checkpoint, part)
        content = draft.contents[part.storage] if part.storage is not None else None
        plain = isinstance(content, Copied) and content.inflates_to is None
        if not (plain and part.contiguous and part.dtype == tensor.dtype and part.dtype.bits % 8 == 0):
            return None
        assert isinstance(content, Copied)
        begin = part.offset * part.dtype.itemsize
        if begin + part.nbytes > content.nbytes or storage.swapped:
            return None
        spans.extend(cut(content.spans, begin, begin + part.nbytes))
    return Copied(tuple(spans))


def _as_drafted(draft: Draft, part: Tensor) -> Storage:
    """A part's storage with the bytes that the draft has for it, at hand where they are not those of the file."""
    storage = _storage(draft.checkpoint, part)
    content = draft.contents[part.storage] if part.storage is not None else None
    as_it_lies = isinstance(content, Copied) and (storage.inline is not None or content.spans == (storage.span,))
    if content is None or as_it_lies or isinstance(content, Held):
        return storage
    return replace(storage, span=None, inline=bytes(joined(content, 0, content.nbytes)))


def _storage(checkpoint: Checkpoint, part: Tensor) -> Storage:
    assert part.storage is not None
    return checkpoint.storages[part.storage]
