"""Keys of dicts and elements of sets: what loading hashes must be hashable, and cheap to hash."""

from __future__ import annotations

from collections.abc import Sequence as SequenceABC
from dataclasses import replace

from ckpttool.editing import Editor
from ckpttool.model import Call, Global, Mapping, Node, Sequence, Tensor, Value

LEAVES = 10_000
"""Values that one key may unfold to."""

DEPTH = 100
"""Tuples that one key may nest."""


def is_hashable(nodes: SequenceABC[Node], index: int) -> bool:
    """Whether a node makes a key that a loader can hash, in bounded time."""
    left = LEAVES
    stack = [(index, 0)]
    while stack:
        here, depth = stack.pop()
        node = nodes[here]
        left -= 1
        if left < 0 or depth > DEPTH:
            return False
        if isinstance(node, Sequence) and node.kind == "tuple":
            stack.extend((item, depth + 1) for item in node.items[: left + 1])
        elif not isinstance(node, (Value, Global, Tensor)) and not _is_named(node):
            return False
    return True


def _is_named(node: Node) -> bool:
    return isinstance(node, Call) and (node.module, node.name) in (("torch", "device"), ("torch", "Size"))


def with_keys(editor: Editor, node: Mapping, renamed: dict[int, str]) -> Mapping:
    """The mapping with a text in place of every key that cannot be one; those in ``renamed`` keep apart too.

    ``renamed`` are nodes that had another value before, by index, with the name of what they were.
    """
    keys = [key if is_hashable(editor.nodes, key) else editor.value(_said(editor.nodes[key])) for key in node.keys]
    changed = [key != old or old in renamed for key, old in zip(keys, node.keys, strict=True)]
    if not any(changed):
        return node
    taken = {_face(editor.nodes[key]) for key, new in zip(keys, changed, strict=True) if not new}
    for place, (key, new) in enumerate(zip(keys, changed, strict=True)):
        if not new:
            continue
        found, count = key, 1
        while _face(editor.nodes[found]) in taken:
            count += 1
            found = editor.value(f"{_said(editor.nodes[key])} ({count})")
        taken.add(_face(editor.nodes[found]))
        keys[place] = found
    return replace(node, keys=tuple(keys))


def _face(node: Node) -> object:
    if isinstance(node, Value):
        # As dicts compare keys: 1, 1.0 and True are one.
        return ("value", node.value)
    return (type(node).__name__, id(node))


def _said(node: Node) -> str:
    if isinstance(node, Value):
        return node.value if isinstance(node.value, str) else repr(node.value)
    kind = node.kind if isinstance(node, (Mapping, Sequence)) else type(node).__name__.lower()
    return f"<a {kind} as a key>"


def of_set(editor: Editor, node: Sequence) -> Sequence:
    """A set whose elements a loader can hash, else a list of them."""
    hashable = all(is_hashable(editor.nodes, item) for item in node.items)
    return Sequence("set" if hashable else "list", node.items)
