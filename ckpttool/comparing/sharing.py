"""Which tensors look at the same bytes, and which keys stand in another order. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ckpttool.changes import Pair
from ckpttool.model import Checkpoint, Tensor


def retied(a: Checkpoint, b: Checkpoint, pairs: Sequence[Pair]) -> dict[int, tuple[list[str], list[str]]]:
    """Pairs that share bytes with other partners in b than in a: place -> partners' keys before and after.

    Only keys that both sides have count: a tie to a tensor that was removed is not another change.
    """
    before, after = _partners(a, pairs, "a"), _partners(b, pairs, "b")
    return {
        place: (
            [pairs[i].a.key for i in before.get(place, ()) if i != place],
            [pairs[i].b.key for i in after.get(place, ()) if i != place],
        )
        for place in sorted(before.keys() | after.keys())
        if before.get(place) != after.get(place)
    }


def _partners(checkpoint: Checkpoint, pairs: Sequence[Pair], side: Literal["a", "b"]) -> Mapping[int, tuple[int, ...]]:
    """Place of a pair -> places of all pairs that share bytes with it, itself included; nothing if alone."""
    ranges: dict[int, list[tuple[int, int, int]]] = {}
    for place, pair in enumerate(pairs):
        if pair.how in ("split", "concat"):
            continue
        tensor = checkpoint.nodes[(pair.a if side == "a" else pair.b).index]
        if isinstance(tensor, Tensor) and tensor.storage is not None and tensor.extent:
            bits = tensor.dtype.bits
            start, stop = tensor.offset * bits, (tensor.offset + tensor.extent) * bits
            ranges.setdefault(tensor.storage, []).append((start, stop, place))
    found: dict[int, tuple[int, ...]] = {}
    for group in (group for one in ranges.values() if len(one) > 1 for group in _overlapping(one)):
        members = tuple(sorted(group))
        found.update(dict.fromkeys(members, members))
    return found


def _overlapping(ranges: list[tuple[int, int, int]]) -> Iterable[list[int]]:
    """Places in groups whose ranges overlap, those of one member left out."""
    group: list[int] = []
    edge = -1
    for start, stop, place in sorted(ranges):
        if start >= edge:
            if len(group) > 1:
                yield group
            group = []
        group.append(place)
        edge = max(edge, stop)
    if len(group) > 1:
        yield group


def moved_ahead(order: Sequence[int]) -> int:
    """How many have to be taken out of a row of distinct numbers until the rest ascends; n log n."""
    tails: list[int] = []
    for number in order:
        place = bisect_left(tails, number)
        tails[place : place + 1] = [number]
    return len(order) - len(tails)


def out_of_order(rows: Mapping[tuple[str, str], Sequence[int]]) -> dict[tuple[str, str], tuple[int, int]]:
    """Of rows of places in b, listed in a's order: how many moved, of how many; rows that ascend left out."""
    counted = {key: (moved_ahead(row), len(row)) for key, row in rows.items() if list(row) != sorted(row)}
    return {key: found for key, found in counted.items() if found[0]}
