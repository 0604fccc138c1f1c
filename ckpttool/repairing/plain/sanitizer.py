"""One walk over a tree in which every node that torch refuses gives way to plain data. Linear, without recursion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from ckpttool.editing import Editor, below
from ckpttool.frozen import dataclass
from ckpttool.model import Blob, Call, Global, Mapping, Node, Sequence, Tensor, Value
from ckpttool.repairing.plain.keys import of_set, with_keys
from ckpttool.repairing.plain.made import Made, Op, described
from ckpttool.repairing.plain.objects import of_call, of_name
from ckpttool.repairing.plain.tensors import of_tensor

HOPS = 64
"""Wrappers around wrappers that are followed to what they hold."""

_DICT_NAMES = frozenset(dir(dict)) | {"move_to_end", "popitem"}


@dataclass(frozen=True, slots=True)
class Change:
    """A node that gave way: its index in the tree, and what it became."""

    index: int
    made: Made


class Sanitizer:
    """Edits a tree in place. ``changes`` are told in the order of the walk."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._kept: set[int] = set()
        self._renamed: dict[int, str] = {}
        self.changes: list[Change] = []

    def run(self) -> None:
        """Replace what has to be; to be called once."""
        editor = self._editor
        if editor.root is None:
            return
        order: list[int] = []
        seen = {editor.root}
        stack = [editor.root]
        while stack:
            index = stack.pop()
            order.append(index)
            self._visit(index)
            fresh = [one for one in below(editor.nodes[index]) if one not in seen]
            seen.update(fresh)
            stack.extend(reversed(fresh))
        for index in order:
            self._rehash(index)

    def _visit(self, index: int) -> None:
        editor = self._editor
        before = editor.nodes[index]
        made = self._made(index, before)
        assert not isinstance(made.node, int)
        if made.node is not before:
            editor.replace(index, made.node)
        if not made.same:
            self.changes.append(Change(index, made))
            self._renamed[index] = made.what
        if isinstance(made.node, Tensor) and made.node.call is not None:
            self._kept.add(made.node.call)

    def _made(self, index: int, node: Node) -> Made:
        """What a node becomes, wrappers followed to what they hold; told of the outermost."""
        first: Made | None = None
        seen = {index}
        for _ in range(HOPS):
            made = self._once(index, node)
            first = made if first is None or first.same else first
            if not isinstance(made.node, int):
                return replace(first, node=made.node, op=_worse(first, made))
            index = made.node
            if index in seen:
                break
            seen.add(index)
            node = self._editor.nodes[index]
        return described("an object that holds itself")

    def _once(self, index: int, node: Node) -> Made:
        editor = self._editor
        if isinstance(node, Call):
            return Made(node) if index in self._kept else of_call(editor, node)
        if isinstance(node, Tensor):
            return of_tensor(editor, node)
        if isinstance(node, Value):
            return _value(node)
        if isinstance(node, Global):
            return of_name(node)
        return Made(node) if isinstance(node, Blob) else _container(editor, node)

    def _rehash(self, index: int) -> None:
        """Keys and elements of sets, once everything in them is what it will be."""
        editor = self._editor
        node = editor.nodes[index]
        if isinstance(node, Mapping):
            changed: Node = with_keys(editor, node, self._renamed)
        elif isinstance(node, Sequence) and node.kind == "set":
            changed = of_set(editor, node)
        else:
            return
        if changed != node:
            editor.replace(index, changed)
            if index not in self._renamed:
                kind = "keys that a loader cannot hash" if isinstance(node, Mapping) else "a set of objects"
                into = "texts" if isinstance(node, Mapping) else "a list"
                self.changes.append(Change(index, Made(changed, kind, into)))


def _worse(one: Made, other: Made) -> Op:
    ranks: tuple[Op, ...] = get_args(Op)
    return max(one.op, other.op, key=ranks.index)


# --- plain values and containers -----------------------------------------------------------------------------


def _value(node: Value) -> Made:
    value = node.value
    if node.call is not None:
        return Made(Value(value), "a numpy number", "a number")
    return Made(node)


def _container(editor: Editor, node: Mapping | Sequence) -> Made:
    if isinstance(node, Sequence):
        return _sequence(node)
    if node.kind == "OrderedDict" and node.state is not None and not _is_harmless(editor, node.state):
        return Made(replace(node, state=None), "attributes of an OrderedDict", "its entries alone")
    if node.kind == "OrderedDict" or (node.state is None and node.kind in ("dict", "Counter")):
        return Made(node)
    kind = "Counter" if node.kind == "Counter" else "dict"
    return Made(Mapping(kind, node.keys, node.values), f"a {node.kind}", f"a {kind}")


def _is_harmless(editor: Editor, state: int) -> bool:
    """Whether attributes have names of data: no dunder, and no method that would change what the dict does."""
    node = editor.nodes[state]
    if not isinstance(node, Mapping) or node.kind not in ("dict", "OrderedDict"):
        return False
    names = [editor.nodes[key] for key in node.keys]
    texts = [name.value for name in names if isinstance(name, Value)]
    return len(texts) == len(names) and all(
        isinstance(text, str) and not text.startswith("__") and text not in _DICT_NAMES for text in texts
    )


def _sequence(node: Sequence) -> Made:
    if node.kind in ("list", "tuple") and node.state is None:
        return Made(node)
    if node.kind == "set" and node.state is None:
        return Made(node)
    kind = {"frozenset": "set", "deque": "list"}.get(node.kind, node.kind)
    return Made(Sequence(kind, node.items), f"a {node.kind}", f"a {kind}")


def devices(editor: Editor) -> Iterator[str]:
    """Storages of every other device on the CPU; the tags that they had."""
    for index, storage in enumerate(editor.storages):
        if storage.device != "cpu":
            yield storage.device
            editor.storages[index] = replace(storage, device="cpu")
