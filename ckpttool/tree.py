"""Walking a checkpoint's tree: paths, leaves, plain values. Pure; bounded for any input."""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.model import MAX_DEPTH, Call, Checkpoint, Entry, Global, Mapping, Node, Scalar, Sequence, Tensor, Value

REVISITS = 8
"""Leaves that shared containers may add, as a multiple of the arena's size; past it they are walked once only."""

_CONTAINERS = (Mapping, Sequence, Call)
_MODULE_PARTS = frozenset({"_parameters", "_buffers", "_modules"})


def walk(checkpoint: Checkpoint, start: int | None = None, path: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Yield the leaves below ``start`` (default: the root) in the file's order.

    A container reached twice is walked twice, as a state dict saved under two names should be; cycles are
    cut, levels below ``MAX_DEPTH`` are left out, and the number of leaves stays linear in the arena.
    """
    first = checkpoint.root if start is None else start
    if first is None:
        return
    nodes = checkpoint.nodes
    budget = 10_000 + REVISITS * len(nodes)
    seen: set[int] = set()
    active: set[int] = set()
    stack: list[tuple[tuple[str, ...], Iterator[tuple[tuple[str, ...], int]], int]] = [(path, iter([((), first)]), -1)]
    while stack:
        here, rest, opened = stack[-1]
        for step, index in rest:
            node = nodes[index]
            if not isinstance(node, _CONTAINERS):
                yield Entry(here + step, index, node)
                continue
            deeper = here + step
            if index in active or len(deeper) >= MAX_DEPTH or (budget <= 0 and index in seen):
                continue
            below = children(nodes, node)
            if not below:
                yield Entry(deeper, index, node)
                continue
            budget -= len(below)
            seen.add(index)
            active.add(index)
            stack.append((deeper, iter(below), index))
            break
        else:
            stack.pop()
            active.discard(opened)


def children(nodes: tuple[Node, ...], node: Node) -> list[tuple[tuple[str, ...], int]]:
    """The named children of a container: ``(path segments, node index)``. Empty for leaves.

    A pickled ``nn.Module`` shows its parameters, buffers and submodules under their own names, as
    ``state_dict()`` would, before its other attributes.
    """
    if isinstance(node, Mapping):
        return [((key_text(nodes[k]),), v) for k, v in zip(node.keys, node.values, strict=True)]
    if isinstance(node, Sequence):
        return [((str(i),), item) for i, item in enumerate(node.items)]
    if isinstance(node, Call):
        return _call_children(nodes, node)
    return []


def _call_children(nodes: tuple[Node, ...], node: Call) -> list[tuple[tuple[str, ...], int]]:
    found: list[tuple[tuple[str, ...], int]] = []
    state = None if node.state is None else nodes[node.state]
    if isinstance(state, Mapping):
        for step, child in children(nodes, state):
            inner = nodes[child]
            if step[0] in _MODULE_PARTS and isinstance(inner, Mapping):
                found.extend(children(nodes, inner))
            else:
                found.append((step, child))
    elif node.state is not None:
        found.append((("state",), node.state))
    found.extend(((f"args[{i}]",), arg) for i, arg in enumerate(node.args) if not isinstance(nodes[arg], Global))
    found.extend(((str(i),), item) for i, item in enumerate(node.items))
    found.extend(((key_text(nodes[k]),), v) for k, v in zip(node.keys, node.values, strict=True))
    return found


def paths_to(checkpoint: Checkpoint, wanted: set[int]) -> dict[int, tuple[str, ...]]:
    """The first path to each wanted node, containers and calls included; nodes out of reach are left out."""
    found: dict[int, tuple[str, ...]] = {}
    if checkpoint.root is None:
        return found
    seen = {checkpoint.root}
    stack: list[tuple[tuple[str, ...], int]] = [((), checkpoint.root)]
    while stack and len(found) < len(wanted):
        here, index = stack.pop()
        if index in wanted:
            found[index] = here
        if len(here) < MAX_DEPTH:
            fresh = [
                (here + step, child) for step, child in _all_children(checkpoint.nodes, index) if child not in seen
            ]
            seen.update(child for _, child in fresh)
            stack.extend(reversed(fresh))
    return found


def _all_children(nodes: tuple[Node, ...], index: int) -> list[tuple[tuple[str, ...], int]]:
    """The children that ``children`` shows, then what hides behind them: states, calls, components."""
    node = nodes[index]
    below = children(nodes, node)
    if isinstance(node, Tensor):
        return [((name,), part) for name, part in node.parts] + ([] if node.call is None else [((), node.call)])
    if isinstance(node, (Mapping, Sequence, Call)) and node.state is not None:
        below = [*below, (("state",), node.state)]
    if isinstance(node, Call):
        below = [*below, *(((f"args[{i}]",), arg) for i, arg in enumerate(node.args))]
    return below


def key_text(node: Node) -> str:
    """How a mapping's key reads inside a path."""
    if isinstance(node, Value):
        value = node.value
        return value if isinstance(value, str) else repr(value)
    if isinstance(node, Global):
        return node.dotted
    return f"<{type(node).__name__.lower()}>"


def lookup(checkpoint: Checkpoint, index: int | None, *steps: str) -> int | None:
    """The node index reached from ``index`` by mapping keys; None where a step is missing."""
    for step in steps:
        node = None if index is None else checkpoint.nodes[index]
        if not isinstance(node, Mapping):
            return None
        index = child_named(checkpoint, node, step)
    return index


def child_named(checkpoint: Checkpoint, node: Mapping, name: str) -> int | None:
    """The value under ``name``, the last one where it stands twice."""
    for key, value in zip(reversed(node.keys), reversed(node.values), strict=True):
        if key_text(checkpoint.nodes[key]) == name:
            return value
    return None


def fields(checkpoint: Checkpoint, index: int | None) -> dict[str, int]:
    """A mapping node as ``{key text: value index}``; empty for anything else."""
    node = None if index is None else checkpoint.nodes[index]
    if isinstance(node, Mapping):
        return {key_text(checkpoint.nodes[k]): v for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, Call) and node.state is not None:
        return fields(checkpoint, node.state)
    return {}


def items(checkpoint: Checkpoint, index: int | None) -> tuple[int, ...]:
    """A sequence node's items; empty for anything else."""
    node = None if index is None else checkpoint.nodes[index]
    return node.items if isinstance(node, Sequence) else ()


def plain(checkpoint: Checkpoint, index: int | None) -> Scalar:
    """The plain value at ``index``; None for containers, tensors and absent nodes."""
    node = None if index is None else checkpoint.nodes[index]
    return node.value if isinstance(node, Value) else None


def number(checkpoint: Checkpoint, index: int | None) -> int | float | None:
    """The int or float at ``index``; None for anything else, booleans included."""
    value = plain(checkpoint, index)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def subtree_tensors(checkpoint: Checkpoint, index: int | None) -> dict[str, int]:
    """Every tensor below ``index`` as ``{key: node index}``, keys relative to it."""
    if index is None:
        return {}
    return {e.key: e.index for e in walk(checkpoint, index) if isinstance(e.node, Tensor)}


__all__ = [
    "child_named",
    "children",
    "fields",
    "items",
    "key_text",
    "lookup",
    "number",
    "paths_to",
    "plain",
    "subtree_tensors",
    "walk",
]
