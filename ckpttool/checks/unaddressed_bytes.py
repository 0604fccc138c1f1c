"""Storages hold bytes that no tensor looks at.

What: Tensors are views of storages, and torch saves whole storages. The bytes that no view covers are
added up.

Why: The file is larger than its content, sometimes by orders of magnitude, and every load reads and
keeps the rest.

Cause: A slice, a row or a `detach()`ed piece of a large tensor was saved: `torch.save(x[:10])` writes
all of `x`.

Remedy: Save `x[:10].clone()`. To make this file smaller, load it, clone every tensor and save it under
a new name:
what the tensors hold stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import storage_keys
from ckpttool.checks._training import listing
from ckpttool.model import Checkpoint, Damage, Storage, Tensor
from ckpttool.rules import Context

ALWAYS = 1 << 20
"""Bytes from which waste is worth a word, whatever the file's size."""

NOTABLE = 64 << 10
"""Bytes from which waste is worth a word if it is the larger part of all storages."""


@judges(__doc__, "CK601", "unaddressed-bytes", "warning")
def unaddressed_bytes(context: Context) -> Iterator[Damage]:
    """One finding for the whole checkpoint, with the storages that waste most."""
    checkpoint = context.checkpoint
    wasted = _wasted(checkpoint)
    lost, total = sum(wasted.values()), sum(_held(s) for s in checkpoint.storages)
    if lost < ALWAYS and (lost < NOTABLE or lost * 2 < total):
        return
    worst = sorted(wasted, key=lambda i: -wasted[i])[:5]
    users = storage_keys(checkpoint, worst)
    names = listing([users[i][0] for i in worst])
    message = f"{lost} of {total} bytes in storages belong to no tensor; most behind {names}"
    yield Damage("unaddressed-bytes", "", message, {"unaddressed": lost, "bytes": total, "storages": len(wasted)})


def _wasted(checkpoint: Checkpoint) -> dict[int, int]:
    """Bytes that no tensor reaches, by storage; storages that no tensor names at all are another rule's."""
    reached: dict[int, list[tuple[int, int]]] = {}
    held = [_held(s) for s in checkpoint.storages]
    full: set[int] = set()
    for node in checkpoint.nodes:
        if not isinstance(node, Tensor) or node.storage is None or node.storage in full or node.offset < 0:
            continue
        # One dense tensor over the whole storage is how nearly all of them are: no need to look closer.
        if node.offset == 0 and 0 <= node.storage < len(held) and _fills(node, held[node.storage]):
            full.add(node.storage)
            continue
        start = node.offset * node.dtype.bits // 8
        reached.setdefault(node.storage, []).append((start, node.dtype.nbytes(node.offset + node.extent)))
    known = {i: ranges for i, ranges in reached.items() if 0 <= i < len(held) and i not in full}
    lost = {i: held[i] - _union(ranges) for i, ranges in known.items()}
    return {i: nbytes for i, nbytes in lost.items() if nbytes > 0}


def _fills(tensor: Tensor, held: int) -> bool:
    return tensor.dtype.nbytes(tensor.numel) >= held and tensor.contiguous


def _held(storage: Storage) -> int:
    """Bytes that the file really holds: a storage may claim any number."""
    return 0 if storage.span is None else min(storage.nbytes, storage.span.nbytes)


def _union(ranges: list[tuple[int, int]]) -> int:
    covered, end = 0, 0
    for start, stop in sorted(ranges):
        covered += max(0, stop - max(start, end))
        end = max(end, stop)
    return covered
