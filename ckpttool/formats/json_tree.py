"""A JSON file that belongs to a checkpoint (``trainer_state.json``) as a tree like any other."""

from __future__ import annotations

from ckpttool.formats.strict_json import parse
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Damage, Extent, Json, Mapping, Node, Sequence, Span, Value
from ckpttool.source import Source

NAME = "json"

MOST = 64 << 20
"""Bytes of a JSON file that are read; the log of a long run takes a few megabytes."""


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe a JSON file; total. Its tree is missing where it cannot be parsed."""
    extents = (Extent("json", Span(source.name, 0, source.size)),)
    files = (source.name,)
    bound = min(MOST, limits.json_bytes)
    if source.size > bound:
        message = f"{source.size} bytes of JSON, and {bound} are read at most"
        damage = Damage("over-limit", "", message, {"needs": source.size, "have": bound})
        return Checkpoint(source.name, NAME, extents=extents, damage=(damage,), files=files, nbytes=source.size)
    parsed = parse(source.read(0, source.size))
    if parsed.error:
        message = f"the file cannot be used: {parsed.error}"
        bad = Damage("unreadable-part", "", message, hint="take the checkpoint before this one")
        return Checkpoint(source.name, NAME, extents=extents, damage=(bad,), files=files, nbytes=source.size)
    return Checkpoint(source.name, NAME, nodes_of(parsed.value), 0, extents=extents, files=files, nbytes=source.size)


def nodes_of(value: Json) -> tuple[Node, ...]:
    """The arena of a JSON value, its root first; without recursion."""
    nodes: list[Node] = [_PENDING]
    stack: list[tuple[Json, int]] = [(value, 0)]
    while stack:
        here, index = stack.pop()
        if isinstance(here, dict):
            first = len(nodes)
            for key in here:
                nodes += (Value(key), _PENDING)
            keys, values = range(first, len(nodes), 2), range(first + 1, len(nodes), 2)
            nodes[index] = Mapping("dict", tuple(keys), tuple(values))
            stack.extend(zip(here.values(), values, strict=True))
        elif isinstance(here, list):
            places = range(len(nodes), len(nodes) + len(here))
            nodes += [_PENDING] * len(here)
            nodes[index] = Sequence("list", tuple(places))
            stack.extend(zip(here, places, strict=True))
        else:
            nodes[index] = Value(here)
    return tuple(nodes)


_PENDING = Value(None)
