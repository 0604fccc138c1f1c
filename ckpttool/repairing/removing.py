"""Taking tensors out of a tree so that what is left still is a checkpoint: mappings shrink, positions stay."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping as MappingABC
from dataclasses import replace

from ckpttool.editing import Editor, below
from ckpttool.layout import Layout, Optimizer
from ckpttool.model import Call, Checkpoint, Mapping, Sequence, Tensor, Value
from ckpttool.tree import key_text, lookup


def remove(editor: Editor, gone: Collection[int]) -> None:
    """Take nodes out of every container: items of dicts go with their keys, places in lists and calls hold None.

    ``_metadata`` and the like stay: they describe modules, not tensors.
    """
    gone = frozenset(gone)
    for index, node in enumerate(list(editor.nodes)):
        if isinstance(node, Mapping) and not gone.isdisjoint(node.values):
            pairs = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if v not in gone]
            keys, values = tuple(k for k, _ in pairs), tuple(v for _, v in pairs)
            editor.replace(index, replace(node, keys=keys, values=values))
        elif isinstance(node, Sequence) and not gone.isdisjoint(node.items):
            editor.replace(index, replace(node, items=_blanked(editor, node.items, gone)))
        elif isinstance(node, Call) and not gone.isdisjoint((*node.args, *node.items, *node.values)):
            args, items, values = (_blanked(editor, some, gone) for some in (node.args, node.items, node.values))
            editor.replace(index, replace(node, args=args, items=items, values=values))


def _blanked(editor: Editor, indices: tuple[int, ...], gone: frozenset[int]) -> tuple[int, ...]:
    return tuple(editor.value(None) if index in gone else index for index in indices)


ASIDE = "salvaged"
"""The entry of the checkpoint's dict under which whole tensors stand that are of no use to their optimizer."""


def take_aside(editor: Editor, stale: MappingABC[int, str]) -> dict[int, str]:
    """Take optimizer states out of their optimizers; what is left in them stands under ``salvaged``, by their keys.

    Nothing that is whole is lost this way, and no optimizer meets half a state. The new keys by node; states in which
    no tensor is left, and all where the root is no dict, have none.
    """
    root = None if editor.root is None else editor.nodes[editor.root]
    remove(editor, stale.keys())
    kept = {index: key for index, key in stale.items() if _holds_tensors(editor, index)}
    if editor.root is None or not isinstance(root, Mapping) or not kept:
        return {}
    names = [node.value for index in root.keys if isinstance(node := editor.nodes[index], Value)]
    if ASIDE in names:
        return {}
    root = editor.nodes[editor.root]
    assert isinstance(root, Mapping)
    home = editor.mapping([(key, index) for index, key in kept.items()])
    editor.replace(editor.root, replace(root, keys=(*root.keys, editor.value(ASIDE)), values=(*root.values, home)))
    return {index: f"{ASIDE}.{key}" for index, key in kept.items()}


def _holds_tensors(editor: Editor, index: int) -> bool:
    return any(isinstance(editor.nodes[child], Tensor) for child in below(editor.nodes[index]))


def orphaned(checkpoint: Checkpoint, layout: Layout, gone: Collection[int]) -> dict[int, str]:
    """The optimizer states that make no sense any more, by the node of the state, with the key of each.

    A state of which a moment is gone goes as a whole, and so does that of a parameter that is gone: optimizers
    start such a parameter afresh, where half a state would stop them or send them astray.
    """
    found: dict[int, str] = {}
    for optimizer in layout.optimizers:
        states = lookup(checkpoint, optimizer.index, "state")
        node = None if states is None else checkpoint.nodes[states]
        if not isinstance(node, Mapping):
            continue
        idents = frozenset(_broken(optimizer, gone))
        for key, value in zip(node.keys, node.values, strict=True):
            ident = key_text(checkpoint.nodes[key])
            if ident in idents:
                found[value] = f"{optimizer.key}.state.{ident}".lstrip(".")
    return found


def _broken(optimizer: Optimizer, gone: Collection[int]) -> Iterator[str]:
    for slot in optimizer.slots:
        if slot.parameter in gone or any(index in gone for _, index in slot.state):
            yield slot.ident
