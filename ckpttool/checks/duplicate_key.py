"""A dict sets the same key twice.

What: The pickle assigns a key of one dict more than once. The finding names the key with its place, and how
many such keys the file has is said when they are many.

Why: `torch.load` keeps the last value and says nothing; the earlier one is in the file, takes room and is
never seen. A reader that keeps the first sees other weights.

Cause: No dict can be saved like that by `torch.save`. The pickle was edited, merged or damaged (a changed
byte can turn one key into another), or made so that two readers see two things.

Remedy: `ckpttool inspect --tree` shows both values. Save the checkpoint again from the program that made
it, or take the previous one; do not trust either value.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import LONGEST, MOST, Fault, capped, keys_of
from ckpttool.errors import printable
from ckpttool.model import Checkpoint, Damage, Mapping, Value
from ckpttool.rules import Context
from ckpttool.tree import key_text


@judges(__doc__, "CK314", "duplicate-key", "warning")
def duplicate_key(context: Context) -> Iterator[Damage]:
    """Keys that a mapping sets again: equal text, or the very same node."""
    checkpoint = context.checkpoint
    found: list[tuple[int, int]] = []
    for index, node in enumerate(checkpoint.nodes):
        if isinstance(node, Mapping):
            found.extend((index, key) for key in _repeated(checkpoint, node))
    places = keys_of(checkpoint, {index for index, _ in found[:MOST]}) if found else {}
    shown = ((_where(checkpoint, places[i], key), _fault(checkpoint, key)) for i, key in found[:MOST])
    yield from capped("duplicate-key", shown, len(found), "keys")


def _repeated(checkpoint: Checkpoint, mapping: Mapping) -> Iterator[int]:
    seen: set[str | int] = set()
    told: set[str | int] = set()
    for key in mapping.keys:
        node = checkpoint.nodes[key]
        # Text by value, the rest by node: hashing a number from the file can be made slow.
        mark = node.value if isinstance(node, Value) and isinstance(node.value, str) else key
        if mark in seen and mark not in told:
            told.add(mark)
            yield key
        seen.add(mark)


def _where(checkpoint: Checkpoint, place: str, key: int) -> str:
    name = _name(checkpoint, key)
    return f"{place}.{name}" if place else name


def _fault(checkpoint: Checkpoint, key: int) -> Fault:
    name = _name(checkpoint, key)
    return f"key '{name}' is set more than once; torch.load keeps the last value", {"key": name}


def _name(checkpoint: Checkpoint, key: int) -> str:
    return printable(key_text(checkpoint.nodes[key])[:LONGEST])
