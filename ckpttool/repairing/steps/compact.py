"""Bytes that no tensor addresses are left out: views get storages of their own, what is shared stays shared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckpttool.draft import Content, Copied, Held, Input, Made
from ckpttool.editing import Editor
from ckpttool.expressions import Form, Leaf
from ckpttool.model import Checkpoint, Span, Storage, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Mended
from ckpttool.repairing.ranges import Range, is_one_view, ranges
from ckpttool.tree import paths_to
from ckpttool.units import plural, size

_DENSE = tuple(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter"))
_FLAT = ("safetensors", "torch-tar")


def mend(case: Case) -> Mended:
    """Cut storages down to what their tensors address. Values, shapes and ties stay as they are."""
    draft = case.draft
    checkpoint = draft.checkpoint
    editor = Editor(checkpoint, draft.contents)
    steps = []
    for storage, views in _views(checkpoint).items():
        found = None if views is None else _cut(editor, storage, views)
        if found is not None:
            steps.append(_step(checkpoint, checkpoint.storages[storage], views or {}, found))
    steps += _unreached(checkpoint, case.draft.contents)
    return Mended(editor.finish(), tuple(steps)) if steps else Mended(draft)


# --- what may be cut -----------------------------------------------------------------------------------------


def _views(checkpoint: Checkpoint) -> dict[int, dict[int, Tensor] | None]:
    """The tensors of each storage by node; None where something else than a dense tensor needs it whole."""
    found: dict[int, dict[int, Tensor] | None] = {}
    for index, node in enumerate(checkpoint.nodes):
        if not isinstance(node, Tensor) or node.storage is None:
            continue
        views = found.setdefault(node.storage, {})
        if not _is_view(node):
            found[node.storage] = None
        elif views is not None:
            views[index] = node
    return found


def _is_view(node: Tensor) -> bool:
    """Whether a tensor is told by its geometry alone, wherever its storage begins."""
    plain = node.form in _DENSE or node.form.startswith("torch._utils._rebuild_parameter") or node.form in _FLAT
    return plain and node.layout == "strided" and node.dtype.bits % 8 == 0 and len(node.shape) == len(node.stride)


def _cut(editor: Editor, index: int, views: dict[int, Tensor]) -> int | None:
    """Give every range a storage of its own; the bytes that are kept, None where nothing is to be left out."""
    storage, content = editor.storages[index], editor.contents[index]
    parts = ranges(views.items())
    inside = all(part.start >= 0 and part.stop <= storage.nbytes for part in parts)
    if not inside or not _is_as_read(storage, content):
        return None
    kept = 0
    made: list[tuple[Range, bool]] = []
    for part in parts:
        tensors = [views[node] for node in part.nodes if views[node].numel]
        gathered = is_one_view(tensors)
        made.append((part, gathered))
        kept += tensors[0].nbytes if gathered else part.nbytes
    if kept >= storage.nbytes:
        return None
    for part, gathered in made:
        _separate(editor, storage, content, part, {node: views[node] for node in part.nodes}, gathered=gathered)
    return kept


def _is_as_read(storage: Storage, content: Content) -> bool:
    """Whether the content is what lies in the file, byte for byte, and can be taken in part."""
    if isinstance(content, Held):
        return len(content.data) == storage.nbytes and storage.inline == content.data
    whole = isinstance(content, Copied) and content.inflates_to is None and content.spans == (storage.span,)
    return whole and content.nbytes == storage.nbytes


def _separate(
    editor: Editor, storage: Storage, content: Content, part: Range, views: dict[int, Tensor], *, gathered: bool
) -> None:
    if gathered:
        one = next(tensor for tensor in views.values() if tensor.numel)
        made = Made(Leaf("view"), (Input("view", one, storage),), Form(one.dtype, one.shape))
        home = editor.storage(storage, made)
        for node, tensor in views.items():
            editor.replace(node, replace(tensor, storage=home, offset=0, stride=_row_major(tensor.shape)))
        return
    home = editor.storage(storage, _slice(content, part))
    if storage.span is not None:
        start = storage.span.start
        span = Span(storage.span.source, start + part.start, start + part.stop)
        editor.storages[home] = replace(editor.storages[home], span=span)
    for node, tensor in views.items():
        offset = tensor.offset - part.start // tensor.dtype.itemsize if tensor.numel else 0
        editor.replace(node, replace(tensor, storage=home, offset=offset))


def _slice(content: Content, part: Range) -> Content:
    if isinstance(content, Held):
        return Held(content.data[part.start : part.stop])
    assert isinstance(content, Copied)
    span = content.spans[0]
    return Copied((Span(span.source, span.start + part.start, span.start + part.stop),))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


# --- what is told --------------------------------------------------------------------------------------------


def _step(checkpoint: Checkpoint, storage: Storage, views: dict[int, Tensor], kept: int) -> Step:
    keys = tuple(sorted(".".join(path) for path in paths_to(checkpoint, set(views)).values()))
    reason = f"{size(kept)} of the {size(storage.nbytes)} that the file keeps for it are its own"
    if len(views) > 1:
        reason = f"{plural(len(views), 'view')} of {size(storage.nbytes)} address {size(kept)} of them"
    return Step("shrink", keys, keys, reason)


def _unreached(checkpoint: Checkpoint, contents: tuple[Content, ...]) -> Iterator[Step]:
    """Storages that the pickle mentions, or whose records the archive holds, and that no tensor needs."""
    reached = {n.storage for n in checkpoint.nodes if isinstance(n, Tensor)}
    spare = [contents[i].nbytes for i in range(len(checkpoint.storages)) if i not in reached]
    records = {checkpoint.storages[i].record for i in reached if i is not None}
    prefix = checkpoint.metadata.get("prefix")
    if checkpoint.format == "torch-zip" and isinstance(prefix, str):
        home = f"{prefix}/data/" if prefix else "data/"
        known = records | {storage.record for storage in checkpoint.storages}
        spare += [e.span.nbytes for e in checkpoint.extents if e.name.startswith(home) and e.name not in known]
    if spare:
        yield Step("drop", (), (), f"{plural(len(spare), 'storage')} of {size(sum(spare))} that no tensor looks into")
