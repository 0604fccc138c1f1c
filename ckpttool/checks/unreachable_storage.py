"""The file holds storages that no tensor in its tree uses.

What: Records under `data/` that the pickle never names, or storages that it names and builds no tensor
from. Their
number and bytes are given.

Why: The bytes are dead weight, and may be the remains of something that was meant to be removed, such
as private data
or weights under another licence.

Cause: A tool that edited the pickle and kept the records, or a file put together from two.

Remedy: Load the file and save it under a new name, which writes only what the tree reaches. If you did
not edit the
file, ask who did.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.rules import Context
from ckpttool.units import plural, size

UNREAD = frozenset({"pickle-malformed", "directory-damaged", "truncated", "missing-record"})
"""Damage after which nobody knows what the tree would have reached."""


@judges(__doc__, "CK602", "unreachable-storage", "warning")
def unreachable_storage(context: Context) -> Iterator[Damage]:
    """One finding for the whole checkpoint. Says nothing where the tree itself could not be read."""
    checkpoint = context.checkpoint
    if checkpoint.root is None or any(d.rule in UNREAD for d in checkpoint.damage):
        return
    dead = {**_unused(checkpoint), **_unnamed(checkpoint)}
    if dead:
        total = sum(dead.values())
        message = f"{plural(len(dead), 'storage')}, {size(total)}, used by no tensor: {listing(list(dead))}"
        yield Damage("unreachable-storage", "", message, {"storages": json_list(list(dead)), "bytes": total})


def _unused(checkpoint: Checkpoint) -> dict[str, int]:
    used = {node.storage for node in checkpoint.nodes if isinstance(node, Tensor)}
    idle = (s for i, s in enumerate(checkpoint.storages) if i not in used and s.nbytes)
    return {s.record or s.key: s.nbytes for s in idle}


def _unnamed(checkpoint: Checkpoint) -> dict[str, int]:
    """Records where torch puts storages, ``<top folder>/data/<number>``, that no storage lies in."""
    if checkpoint.format != "torch-zip":
        return {}
    held = {storage.record for storage in checkpoint.storages}
    spans = ((e.name, e.span.nbytes) for e in checkpoint.extents if e.name not in held and _is_data(e.name))
    return {name: nbytes for name, nbytes in spans if nbytes}


def _is_data(name: str) -> bool:
    parts = name.split("/")
    return parts[-1].isdecimal() and parts[-2:-1] == ["data"] and len(parts) <= 3
