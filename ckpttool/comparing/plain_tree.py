"""A checkpoint's values as plain containers that a general comparison can take. Pure; bounded, never cyclic.

Every leaf becomes an ``Atom``: text that is equal exactly where two values are the same value of the same type.
``1``, ``1.0`` and ``True`` are three atoms, ``0.0`` and ``-0.0`` two, and NaN is itself where its bits are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeAlias

from ckpttool.model import MAX_DEPTH, Blob, Call, Checkpoint, Global, Json, Mapping, Node, Sequence, Span, Tensor, Value
from ckpttool.tree import REVISITS, children, key_text

DEEP = 16
"""Levels that stay nested; what lies deeper is spelled flat, with joined keys, below the last of them."""

LONG = 64
"""Items from which a list of plain values is one atom: nobody reads the 625 numbers of a generator's state."""

Digest: TypeAlias = Callable[[Span], str]
Plain: TypeAlias = "Atom | dict[Key, Plain] | list[Plain]"


class OtherKey(NamedTuple):
    """A mapping's key that is no string: ``1`` is not ``"1"``."""

    text: str
    kind: str


Key: TypeAlias = "str | OtherKey"

KIND = OtherKey("", "kind")
"""The key under which a container that is neither a dict nor a list says what it is."""


class Hollow(dict["Key", "Plain"]):
    """What holds, or is, nothing but tensors: those are compared elsewhere."""


class Atom(str):
    """A leaf: its text is its identity; ``shown`` is what JSON and people get, ``items`` a long list's atoms."""

    __slots__ = ("items", "shown")
    shown: Json
    items: tuple[str, ...]

    def __new__(cls, identity: str, shown: Json, items: tuple[str, ...] = ()) -> Atom:
        self = super().__new__(cls, identity)
        self.shown = shown
        self.items = items
        return self


def label(key: Key) -> str:
    """A key as a path shows it."""
    return key.text if isinstance(key, OtherKey) else key


def plain_tree(checkpoint: Checkpoint, index: int, digest: Digest | None = None, skip: Collection[int] = ()) -> Plain:
    """What lies below a node, without tensors and without the nodes in ``skip``; linear, whatever the file holds.

    Mappings become dicts whatever their class, lists and deques lists; tuples, sets and objects dicts that name
    their kind. ``digest`` gives a digest of a byte string that was left in the file; without it its size must do.
    """
    return _Builder(checkpoint, digest, skip).build(index)


class _Builder:
    def __init__(self, checkpoint: Checkpoint, digest: Digest | None, skip: Collection[int]) -> None:
        self.nodes = checkpoint.nodes
        self.digest = digest
        self.skip = skip
        self.budget = 10_000 + REVISITS * len(self.nodes)
        # Containers in the order in which they were made, with where they stand.
        self.made: list[tuple[dict[Key, Plain], Key, dict[Key, Plain]]] = []
        self.held_tensors: set[int] = set()
        # Containers whose children go by number: a tensor keeps its place there.
        self.rows: set[int] = set()

    def build(self, index: int) -> Plain:
        top: dict[Key, Plain] = {}
        active: set[int] = set()
        seen: set[int] = set()
        stack: list[tuple[dict[Key, Plain], Key, int, int]] = [(top, "", index, 0)]
        while stack:
            into, key, at, depth = stack.pop()
            if at < 0:
                active.discard(~at)
                continue
            node = self.nodes[at]
            if at in self.skip or isinstance(node, Tensor):
                self.held_tensors.add(id(into))
                if id(into) in self.rows:
                    into[key] = Hollow()
                continue
            if not isinstance(node, (Mapping, Sequence, Call)):
                into[key] = self.atom(node)
                continue
            if at in active or depth >= MAX_DEPTH or (self.budget <= 0 and at in seen):
                into[key] = Atom("cut", "…")
                continue
            long = self.long(node)
            if long is not None:
                into[key] = long
                continue
            below = self.below(node)
            self.budget -= len(below) + 1
            seen.add(at)
            active.add(at)
            stack.append((into, key, ~at, depth))
            inside = self.enter(into, key, node, depth)
            prefix = f"{label(key)}." if inside is into else ""
            for step, child in reversed(below):
                stack.append((inside, f"{prefix}{label(step)}" if prefix else step, child, depth + 1))
        self.empty()
        return _with_lists(top).get("", {})

    def enter(self, into: dict[Key, Plain], key: Key, node: Node, depth: int) -> dict[Key, Plain]:
        """A new container in ``into``, or ``into`` itself where the tree is too deep to go on nesting."""
        kind = _kind(node)
        if depth >= DEEP:
            into[OtherKey(label(key), "kind")] = Atom(f"kind {kind}", kind)
            return into
        inside: dict[Key, Plain] = {}
        if kind != "dict":
            inside[KIND] = Atom(f"kind {kind}", kind)
        if isinstance(node, Sequence):
            self.rows.add(id(inside))
        into[key] = inside
        self.made.append((into, key, inside))
        return inside

    def below(self, node: Node) -> list[tuple[Key, int]]:
        nodes = self.nodes
        if isinstance(node, Mapping):
            return [(_key(nodes[k]), v) for k, v in zip(node.keys, node.values, strict=True)]
        if isinstance(node, Sequence) and node.kind in ("set", "frozenset"):
            return [(self.member(i), i) for i in node.items]
        found: list[tuple[Key, int]] = [(".".join(step), child) for step, child in children(nodes, node)]
        if isinstance(node, Call):
            shown = {child for _, child in found}
            # Names among the arguments (a class, a dtype) are part of what the object is.
            found += [(f"args[{i}]", arg) for i, arg in enumerate(node.args) if arg not in shown]
        return found

    def member(self, index: int) -> Key:
        """An element of a set under its own value: sets have no order."""
        node = self.nodes[index]
        return OtherKey(key_text(node), str(self.atom(node))) if isinstance(node, Value) else "member"

    def long(self, node: Node) -> Atom | None:
        """One atom for a long list of plain values."""
        if not isinstance(node, Sequence) or len(node.items) < LONG or node.kind in ("set", "frozenset"):
            return None
        if not all(isinstance(self.nodes[i], Value) for i in node.items):
            return None
        items = tuple(str(self.atom(self.nodes[i])) for i in node.items)
        return Atom(f"{node.kind} {'|'.join(items)}", f"{len(items):,} values", items)

    def atom(self, node: Node) -> Atom:
        if isinstance(node, Value):
            kind = "" if node.call is None else _kind(self.nodes[node.call]) + " "
            return Atom(kind + identity(node.value), shown(node.value))
        if isinstance(node, Blob):
            text = self.digest(node.span) if self.digest else ""
            return Atom(f"bytes {node.span.nbytes} {text}", f"{node.span.nbytes:,} bytes")
        dotted = node.dotted if isinstance(node, (Global, Call)) else type(node).__name__
        return Atom(f"name {dotted}", dotted)

    def empty(self) -> None:
        """Mark containers that held nothing but tensors."""
        for into, key, inside in reversed(self.made):
            if id(inside) in self.held_tensors and all(_hollow(k, value) for k, value in inside.items()):
                into[key] = Hollow(inside)
                self.held_tensors.add(id(into))


def _hollow(key: Key, value: Plain) -> bool:
    return key is KIND or isinstance(value, Hollow)


def _with_lists(top: dict[Key, Plain]) -> dict[Key, Plain]:
    """Containers marked as lists as real ones, innermost first."""
    order: list[dict[Key, Plain]] = [top]
    for container in order:
        order.extend(child for child in container.values() if isinstance(child, dict))
    for container in reversed(order):
        for key, child in container.items():
            if isinstance(child, dict) and child.get(KIND) == "kind list":
                container[key] = [value for step, value in child.items() if step is not KIND]
    return top


def identity(value: object) -> str:
    """Text that two plain values share exactly where type and bits are the same."""
    if isinstance(value, float):
        return f"float {struct.pack('>d', value).hex()}"
    if isinstance(value, complex):
        return f"complex {struct.pack('>2d', value.real, value.imag).hex()}"
    if isinstance(value, int) and not isinstance(value, bool):
        # Decimal spelling of very long integers is refused by Python.
        return f"int {value:x}"
    return f"{type(value).__name__} {value!r}"


def shown(value: object, longest: int = 200) -> Json:
    """A plain value as JSON has it; long ones cut."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 64 else f"an integer of {value.bit_length():,} bits"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def _key(node: Node) -> Key:
    text = key_text(node)
    if isinstance(node, Value) and isinstance(node.value, str):
        return text
    kind = identity(node.value) if isinstance(node, Value) else type(node).__name__
    return OtherKey(text, kind)


def _kind(node: Node) -> str:
    if isinstance(node, Call):
        return node.dotted
    if isinstance(node, Sequence):
        return "list" if node.kind in ("list", "deque") else node.kind
    return "dict"
