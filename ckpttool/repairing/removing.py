"""Taking tensors out of a tree so that what is left still is a checkpoint: mappings shrink, positions stay."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ckpttool.editing import Editor
from ckpttool.layout import Layout, Optimizer
from ckpttool.model import Call, Checkpoint, Mapping, Sequence
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
            args, items, values = (
                _blanked(editor, some, gone) for some in (node.args, node.items, node.values)
            )
            editor.replace(index, replace(node, args=args, items=items, values=values))


def _blanked(editor: Editor, indices: tuple[int, ...], gone: frozenset[int]) -> tuple[int, ...]:
    return tuple(editor.value(None) if index in gone else index for index in indices)


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
