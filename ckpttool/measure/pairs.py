"""Which pairs of tensors can be compared, and as which tasks: each two views of bytes once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from ckpttool.changes import Tolerance
from ckpttool.measure.leaves import Content, content_of, deflated_extents, packed_content_of
from ckpttool.measure.plan import MOST_VIEWS, SLACK
from ckpttool.measure.two import Task
from ckpttool.model import Checkpoint, Node, Tensor

Pair = tuple[int, int]
Key = tuple[object, ...]
"""What two views of bytes have in common if they are the same."""


def planned(
    a: Checkpoint, b: Checkpoint, pairs: Sequence[Pair], token: str, tolerance: Tolerance, unique: dict[Key, Task]
) -> dict[Pair, Key | None]:
    """Which of the ``unique`` tasks answers for a pair; None where nothing of it can be compared."""
    content_a, content_b = _contents(a, token), _contents(b, token)
    keys: dict[Pair, Key | None] = {}
    for pair in pairs:
        (left, view_a), (right, view_b) = content_a(pair[0]), content_b(pair[1])
        x, y = a.nodes[pair[0]], b.nodes[pair[1]]
        comparable = isinstance(x, Tensor) and isinstance(y, Tensor) and _comparable(x, y)
        if left is None or right is None or not comparable:
            keys[pair] = None
            continue
        keys[pair] = key = view_a, view_b
        if key not in unique:
            assert isinstance(x, Tensor)
            task = _task(left, right, x, tolerance)
            unique[key] = replace(task, same=True) if task.raw and view_a == view_b else task
    return keys


def _comparable(x: Tensor, y: Tensor) -> bool:
    """Of one shape, and elements narrower than a byte only beside their like."""
    return x.shape == y.shape and (x.dtype == y.dtype or not (x.dtype.bits % 8 or y.dtype.bits % 8))


def _task(left: Content, right: Content, tensor: Tensor, tolerance: Tolerance) -> Task:
    packed = tensor.dtype if tensor.dtype.bits % 8 else None
    parted = plain(left) and plain(right)
    raw = parted and left.tensor.dtype == right.tensor.dtype and left.swapped == right.swapped
    return Task(left, right, tolerance, parted=parted and packed is None, raw=raw, packed=packed, numel=tensor.numel)


def _contents(checkpoint: Checkpoint, token: str) -> Callable[[int], tuple[Content | None, Key]]:
    """Content and identity by node; no content once different views ask too often for a storage's bytes."""
    deflated = deflated_extents(checkpoint)
    asked: dict[int, int] = {}
    seen: set[Key] = set()

    @cache
    def content(index: int) -> tuple[Content | None, Key]:
        found = content_of(checkpoint, index, token, deflated)
        found = found or packed_content_of(checkpoint, index, token, deflated)
        if found is None:
            return None, ()
        view = _view(found, checkpoint.nodes[index])
        storage = found.tensor.storage
        if view not in seen and storage is not None:
            seen.add(view)
            asked[storage] = asked.get(storage, 0) + found.tensor.nbytes
            if asked[storage] > MOST_VIEWS * checkpoint.storages[storage].nbytes + SLACK:
                return None, ()
        return found, view

    return content


def plain(content: Content) -> bool:
    """Whether the content's bytes lie in the file as they are, in order: any part of them can be read."""
    return content.place.deflated is None and content.tensor.contiguous


def _view(content: Content, tensor: Node) -> Key:
    assert isinstance(tensor, Tensor)
    strides = None if content.tensor.contiguous else tensor.stride
    where = content.place, content.start, content.stop, content.swapped
    return *where, tensor.dtype.name, tensor.shape, strides
