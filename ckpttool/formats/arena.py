"""From the pickle machine's stand-ins to the frozen arena of ``model`` nodes. Iterative: any depth, any cycle."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from ckpttool.formats.stack import BytesAt, CallOf, DictOf, ListOf, Named, StorageRef, TensorOf
from ckpttool.limits import Limits
from ckpttool.model import MAX_DEPTH, Blob, Call, Global, Mapping, Node, Sequence, Span, Tensor, Value

CUT = MAX_DEPTH + 100
"""Containers nested deeper are replaced by one placeholder: no real tree comes near."""

_ATOMS = (str, int, float, bytes, bool, type(None), complex)


class Arena:
    """Collects nodes from one or several pickles; ``add`` returns the index of a root."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._atoms: dict[Any, int] = {}

    def add(self, root: Any, source: str, base: int, data: bytes | None = None) -> int:
        """Freeze everything reachable from ``root``; byte strings lie in ``source``, ``base`` bytes further in.

        ``data`` is given where the pickle does not lie in the file as it is: byte strings are copied out of it.
        """
        objects, index = self._number(root)
        for obj in objects:
            self.nodes[index[id(obj)]] = (
                self._freeze(obj, index, source, base)
                if data is None or type(obj) is not BytesAt
                else Value(data[obj.start : obj.stop])
            )
        return self._at(root, index)

    def put(self, node: Node) -> int:
        """Append one finished node."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _number(self, root: Any) -> tuple[list[Any], dict[int, int]]:
        """Give every reachable object a place, parents before children, and atoms one place each."""
        objects: list[Any] = []
        index: dict[int, int] = {}
        stack = [(root, 0)]
        nodes = self.nodes
        while stack:
            obj, depth = stack.pop()
            if isinstance(obj, _ATOMS):
                self._atom(obj)
                continue
            if id(obj) in index:
                continue
            index[id(obj)] = len(nodes)
            nodes.append(_PENDING)
            if depth > CUT:
                nodes[-1] = _FOLDED
                continue
            objects.append(obj)
            if type(obj) is not Tensor:
                depth += 1
                # Atoms need no turn of their own, and most children are atoms.
                stack.extend([(x, depth) for x in reversed(_children(obj)) if type(x) is not str])
        return objects, index

    def _atom(self, value: Any) -> int:
        # Bits tell 0.0 from -0.0 and one NaN from another; equality and repr do not.
        kind = type(value)
        key = value if kind is str else (kind, _bits(value) if kind in (float, complex) else value)
        found = self._atoms.get(key)
        if found is None:
            found = self._atoms[key] = len(self.nodes)
            self.nodes.append(Value(value))
        return found

    def _at(self, obj: Any, index: dict[int, int]) -> int:
        return self._atom(obj) if isinstance(obj, _ATOMS) else index[id(obj)]

    def _freeze(self, obj: Any, index: dict[int, int], source: str, base: int) -> Node:
        at = self._at
        if isinstance(obj, Tensor):
            return obj
        if type(obj) is tuple:
            return Sequence("tuple", tuple([at(x, index) for x in obj]))
        if type(obj) is DictOf:
            return Mapping(
                obj.kind,
                tuple([at(x, index) for x in obj.flat[::2]]),
                tuple([at(x, index) for x in obj.flat[1::2]]),
                None if obj.state is None else at(obj.state, index),
                tuple([at(x, index) for x in obj.extra]),
            )
        if type(obj) is ListOf:
            state = None if obj.state is None else at(obj.state, index)
            return Sequence(obj.kind, tuple([at(x, index) for x in obj.items]), state)
        return self._freeze_rare(obj, index, source, base)

    def _freeze_rare(self, obj: Any, index: dict[int, int], source: str, base: int) -> Node:
        at = self._at
        if type(obj) is TensorOf:
            parts = tuple((name, at(part, index)) for name, part in obj.parts)
            tensor: Tensor = replace(obj.tensor, parts=parts, call=at(obj.call, index))
            return tensor
        if type(obj) is CallOf:
            return Call(
                obj.how,
                obj.target.module,
                obj.target.name,
                tuple(at(x, index) for x in obj.args),
                None if obj.state is None else at(obj.state, index),
                tuple(at(x, index) for x in obj.items),
                tuple(at(x, index) for x in obj.flat[::2]),
                tuple(at(x, index) for x in obj.flat[1::2]),
            )
        if type(obj) is BytesAt:
            return Blob(Span(source, base + obj.start, base + obj.stop))
        if type(obj) is StorageRef:
            shape = (obj.numel,)
            return Tensor(obj.dtype, shape, (1,), obj.start, obj.index, False, form="storage")
        assert type(obj) is Named, type(obj)
        return Global(obj.module, obj.name)


def _bits(value: complex) -> bytes:
    return struct.pack(">dd", value.real, value.imag)


def _children(obj: Any) -> list[Any]:
    if type(obj) is tuple:
        return list(obj)
    if type(obj) is DictOf:
        return [*obj.flat, *([] if obj.state is None else [obj.state]), *obj.extra]
    if type(obj) is ListOf:
        return [*obj.items, *([] if obj.state is None else [obj.state])]
    if type(obj) is CallOf:
        return [*obj.args, *([] if obj.state is None else [obj.state]), *obj.items, *obj.flat]
    if type(obj) is TensorOf:
        return [obj.call, *(part for _, part in obj.parts)]
    return []


_PENDING = Value(None)
_FOLDED = Value("<nested too deep>")


def shape_of_tree(nodes: tuple[Node, ...], root: int, limits: Limits) -> list[tuple[str, str]]:
    """Depth, cycles and expanded leaves, as ``(rule, message)``; linear in the arena.

    A tuple that holds another one twice, forty levels deep, is forty nodes here and 2^40 leaves for whoever
    walks, prints or compares it.
    """
    order, cyclic = _post_order(nodes, root)
    depth: dict[int, int] = {}
    leaves: dict[int, int] = {}
    problems: list[tuple[str, str]] = []
    bad_keys: list[str] = []
    for index in order:
        below = structure(nodes[index])
        depth[index] = 1 + max((depth.get(i, 0) for i in below), default=0)
        leaves[index] = min(sum(leaves.get(i, 1) for i in below) or 1, 1 << 62)
        node = nodes[index]
        bad_keys += [_costly(k, leaves, depth) for k in _hashed(node) if leaves.get(k, 1) > limits.key_leaves
                     or depth.get(k, 0) > limits.depth]  # fmt: skip
    if bad_keys:
        problems.append(("hash-bomb", bad_keys[0]))
    if cyclic:
        problems.append(("cyclic-tree", f"{cyclic} containers hold themselves"))
    if depth.get(root, 0) > limits.depth:
        deeper = " or more" if depth[root] > CUT else ""
        problems.append(("too-deep", f"containers are nested {depth[root]}{deeper} deep"))
    if leaves.get(root, 0) > limits.leaves:
        problems.append(("too-many-leaves", f"the tree unfolds to {leaves[root]} leaves"))
    return problems


def _costly(key: int, leaves: dict[int, int], depth: dict[int, int]) -> str:
    return f"a dict key or a set's element unfolds to {leaves[key]} leaves, {depth[key]} deep: hashing it may never end"


def _hashed(node: Node) -> tuple[int, ...]:
    """The nodes that loading hashes: keys, and elements of sets."""
    if isinstance(node, (Mapping, Call)):
        return node.keys
    return node.items if isinstance(node, Sequence) and node.kind in ("set", "frozenset") else ()


def structure(node: Node) -> tuple[int, ...]:
    """Every node that ``node`` refers to."""
    if isinstance(node, Mapping):
        return (*node.keys, *node.values, *(() if node.state is None else (node.state,)), *node.extra)
    if isinstance(node, Sequence):
        return (*node.items, *(() if node.state is None else (node.state,)))
    if isinstance(node, Call):
        state = () if node.state is None else (node.state,)
        return (*node.args, *state, *node.items, *node.keys, *node.values)
    if isinstance(node, Tensor) and node.call is not None:
        return (node.call,)
    return ()


def _post_order(nodes: tuple[Node, ...], root: int) -> tuple[list[int], int]:
    """Containers below ``root``, children first, and how many edges close a cycle."""
    order: list[int] = []
    state: dict[int, int] = {}
    cyclic = 0
    stack = [root]
    while stack:
        index = stack.pop()
        if index < 0:
            state[~index] = 2
            order.append(~index)
            continue
        if index in state:
            continue
        below = structure(nodes[index])
        if not below:
            continue
        state[index] = 1
        stack.append(~index)
        for child in below:
            if state.get(child) == 1:
                cyclic += 1
            elif child not in state:
                stack.append(child)
    return order, cyclic
