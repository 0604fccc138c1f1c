"""Tensors of equal contents share one storage, where they are asked to: ties that the file did not have."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.editing import Editor
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Mended
from ckpttool.tree import paths_to
from ckpttool.units import plural, size

_COPIED = ("weights", "ema")
"""Parts whose loaders copy each tensor into its place. An optimizer goes on with the very tensors that it was given, so
moments that share a storage would change together."""


def mend(case: Case) -> Mended:
    """Let tensors of weights and averages share a storage whose bytes are equal. Optimizer state stays apart."""
    checkpoint, contents = case.draft.checkpoint, case.draft.contents
    if case.equal is None:
        return Mended(case.draft)
    free = _free(checkpoint, case.layout)
    editor = Editor(checkpoint, contents)
    home: dict[int, int] = {}
    for group in case.equal(case.draft, sorted(free)):
        alike: dict[tuple[object, ...], list[int]] = {}
        for index in group:
            storage = checkpoint.storages[index]
            alike.setdefault((storage.dtype, storage.nbytes, storage.device, storage.swapped), []).append(index)
        home |= {index: same[0] for same in alike.values() for index in same[1:]}
    if not home:
        return Mended(case.draft)
    moved = {i: n for i, n in enumerate(checkpoint.nodes) if isinstance(n, Tensor) and n.storage in home}
    for index, tensor in moved.items():
        assert tensor.storage is not None
        editor.replace(index, replace(tensor, storage=home[tensor.storage]))
    keys = tuple(sorted(".".join(path) for path in paths_to(checkpoint, set(moved)).values()))
    spared = sum(checkpoint.storages[index].nbytes for index in home)
    reason = f"{plural(len(home), 'storage')} of {size(spared)} with the bytes of another one: tied to it"
    return Mended(editor.finish(), (Step("tie", keys, keys, reason),))


def _free(checkpoint: Checkpoint, layout: Layout) -> set[int]:
    """Storages that dense tensors of weights and averages alone look into."""
    inside: set[int] = set()
    outside: set[int] = {
        n.storage for n in checkpoint.nodes if isinstance(n, Tensor) and n.storage is not None and n.form == "storage"
    }
    for entry, tensor in checkpoint.tensors():
        if tensor.storage is not None:
            plain = layout.section_of(entry.path) in _COPIED and tensor.layout == "strided"
            (inside if plain else outside).add(tensor.storage)
    return inside - outside
