"""One tensor that is several tensors of the other side, one after another, proved by the content of its slices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ckpttool.changes import Pair
from ckpttool.frozen import dataclass
from ckpttool.pairing.contents import LIKELY, TELLING, Content, SideName, Slices
from ckpttool.pairing.entries import Couple, One, Path, Rest, joined, without
from ckpttool.pairing.names import natural

SIZES = 4
"""Sizes of parts that are tried for one tensor, the most frequent first."""

PARTS = 1024
"""Parts that one tensor may have been."""

Bucket: TypeAlias = "tuple[str, str, tuple[int, ...], int]"


@dataclass(frozen=True, slots=True)
class _Whole:
    """A tensor that may be made of parts along ``dim``; ``sizes`` are those of candidates, most frequent first."""

    one: One
    dim: int
    sizes: tuple[int, ...]
    parts: Mapping[int, Sequence[One]]


def by_parts(rest: Rest, content: Content, slices: Slices) -> tuple[list[Pair], Rest]:
    """``split`` (a's tensor is b's parts) and ``concat`` (the other way) along any dimension, or along a new first one.

    Every element of the whole has to be in exactly one part. Parts whose content others have too (zero biases) are
    taken where their modules follow a proved split; they score below 1.
    """
    pairs: list[Pair] = []
    for side in (0, 1):
        wholes = _wholes(rest[side], rest[1 - side])
        digests = _digests(wholes, side, content)
        found = _found(wholes, digests, side, slices)
        couples: list[Couple] = []
        for whole, parts, score in found:
            turned = [(whole, part) if side == 0 else (part, whole) for part in parts]
            pairs += [joined(couple, "concat" if side else "split", score) for couple in turned]
            couples += turned
        rest = without(rest, couples)
    return pairs, rest


def _wholes(ones: Sequence[One], others: Sequence[One]) -> list[_Whole]:
    """Tensors for which enough candidates of matching type and shape are left on the other side, in name order."""
    # By size from the start: thousands of wholes may ask for the same thousands of candidates.
    flat: dict[Bucket, dict[int, list[One]]] = defaultdict(lambda: defaultdict(list))
    for other in others:
        shape = other.tensor.shape
        for dim in range(len(shape)):
            flat[_bucket(other, dim, shape)][shape[dim]].append(other)
        flat[_bucket(other, 0, (1, *shape))][1].append(other)
    found = []
    for one in sorted(ones, key=lambda one: natural(one.words)):
        for dim, length in enumerate(one.tensor.shape):
            candidates = flat.get(_bucket(one, dim, one.tensor.shape), {})
            parts = {size: same for size, same in candidates.items() if 0 < size < length}
            if length > 1 and sum(size * len(same) for size, same in parts.items()) >= length:
                sizes = sorted(parts, key=lambda size: (-len(parts[size]), size))[:SIZES]
                found.append(_Whole(one, dim, tuple(sizes), parts))
    return found


def _bucket(one: One, dim: int, shape: tuple[int, ...]) -> Bucket:
    return one.side.section, one.tensor.dtype.name, (*shape[:dim], *shape[dim + 1 :]), dim


def _digests(wholes: Sequence[_Whole], side: int, content: Content) -> Mapping[int, str]:
    wanted = {part.side.index for whole in wholes for parts in whole.parts.values() for part in parts}
    return content(_name(1 - side), sorted(wanted)) if wanted else {}


def _name(side: int) -> SideName:
    return "b" if side else "a"


def _found(
    wholes: Sequence[_Whole], digests: Mapping[int, str], side: int, slices: Slices
) -> list[tuple[One, list[One], float]]:
    """Wholes with their parts in order: those that nothing else fits, then those that follow their example."""
    rows = [(whole, choice) for whole in wholes if (choice := _cut(whole, digests, side, slices))]
    uses = Counter(id(part) for _, choice in rows for same in choice for part in same)
    proved: list[tuple[One, list[One], float]] = []
    example: dict[Path, list[Path]] = {}
    for whole, choice in rows:
        if all(len(same) == 1 and uses[id(same[0])] == 1 for same in choice) and _telling(choice):
            parts = [same[0] for same in choice]
            proved.append((whole.one, parts, 1.0))
            example[whole.one.words[:-1]] = [part.words[:-1] for part in parts]
    taken = {id(one) for whole, parts, _ in proved for one in (whole, *parts)}
    for whole in wholes:
        parts = _following(whole, example.get(whole.one.words[:-1], []), digests, side, slices)
        if parts and taken.isdisjoint(map(id, (whole.one, *parts))):
            proved.append((whole.one, parts, LIKELY))
            taken.update(map(id, (whole.one, *parts)))
    return proved


def _telling(choice: Sequence[Sequence[One]]) -> bool:
    return all(same[0].tensor.numel >= TELLING for same in choice)


def _following(
    whole: _Whole, modules: Sequence[Path], digests: Mapping[int, str], side: int, slices: Slices
) -> list[One]:
    """The parts in the modules that the example names, if the content agrees; else nothing."""
    candidates = [part for same in whole.parts.values() for part in same]
    parts, cuts, start = [], [], 0
    for module in modules:
        fits = [part for part in candidates if part.words[:-1] == module]
        if len(fits) != 1:
            return []
        size = next(size for size, same in whole.parts.items() if fits[0] in same)
        parts.append(fits[0])
        cuts.append((start, start + size))
        start += size
    if not parts or start != whole.one.tensor.shape[whole.dim]:
        return []
    texts = slices(_name(side), whole.one.side.index, whole.dim, cuts)
    return parts if list(texts) == [digests.get(part.side.index) for part in parts] else []


def _cut(whole: _Whole, digests: Mapping[int, str], side: int, slices: Slices) -> list[list[One]]:
    """For each part in turn the tensors with that content; nothing where some slice is nobody's."""
    length = whole.one.tensor.shape[whole.dim]
    owners: dict[tuple[int, str], list[One]] = defaultdict(list)
    for size, parts in whole.parts.items():
        for part in parts:
            if part.side.index in digests:
                owners[size, digests[part.side.index]].append(part)
    choice: list[list[One]] = []
    start = 0
    while owners and start < length and len(choice) < PARTS:
        sizes = [size for size in whole.sizes if start + size <= length]
        cuts = [(start, start + size) for size in sizes]
        texts = slices(_name(side), whole.one.side.index, whole.dim, cuts) if cuts else []
        fits = [
            (size, owners[size, text])
            for size, text in zip(sizes, texts, strict=False)
            if (size, text) in owners
        ]
        if not fits:
            return []
        # The largest part says most.
        size, same = max(fits, key=lambda fit: fit[0])
        choice.append(same)
        start += size
    return choice if start == length and len(choice) > 1 else []
