"""One tensor that is several tensors of the other side, one after another, proved by the content of its slices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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


class _Index:
    """Candidates by content and by module: thousands of wholes may share one list of thousands, which lives on."""

    def __init__(self, digests: Mapping[int, str]) -> None:
        self.digests = digests
        self._contents: dict[int, dict[str, list[One]]] = {}
        self._modules: dict[int, dict[Path, list[One]]] = {}

    def holding(self, text: str, same: Sequence[One]) -> list[One]:
        """Those of a list with this content."""
        known = self._contents.get(id(same))
        if known is None:
            known = self._contents[id(same)] = defaultdict(list)
            for one in same:
                if one.side.index in self.digests:
                    known[self.digests[one.side.index]].append(one)
        return known.get(text, [])

    def below(self, module: Path, same: Sequence[One]) -> list[One]:
        """Those of a list in this module."""
        known = self._modules.get(id(same))
        if known is None:
            known = self._modules[id(same)] = defaultdict(list)
            for one in same:
                known[one.words[:-1]].append(one)
        return known.get(module, [])


def _digests(wholes: Sequence[_Whole], side: int, content: Content) -> Mapping[int, str]:
    lists = {id(same): same for whole in wholes for same in whole.parts.values()}
    wanted = {part.side.index for same in lists.values() for part in same}
    return content(_name(1 - side), sorted(wanted)) if wanted else {}


def _name(side: int) -> SideName:
    return "b" if side else "a"


def _found(
    wholes: Sequence[_Whole], digests: Mapping[int, str], side: int, slices: Slices
) -> list[tuple[One, list[One], float]]:
    """Wholes with their parts in order: those that nothing else fits, then those that follow their example."""
    index = _Index(digests)
    rows = [(whole, choice) for whole in wholes if (choice := _cut(whole, index, side, slices))]
    uses = _uses(same for _, choice in rows for same in choice)
    proved: list[tuple[One, list[One], float]] = []
    example: dict[Path, list[Path]] = {}
    for whole, choice in rows:
        if all(len(same) == 1 and uses[id(same[0])] == 1 for same in choice) and _telling(choice):
            parts = [same[0] for same in choice]
            proved.append((whole.one, parts, 1.0))
            example[whole.one.words[:-1]] = [part.words[:-1] for part in parts]
    taken = {id(one) for whole, parts, _ in proved for one in (whole, *parts)}
    for whole in wholes:
        parts = _following(whole, example.get(whole.one.words[:-1], []), index, side, slices)
        if parts and taken.isdisjoint(map(id, (whole.one, *parts))):
            proved.append((whole.one, parts, LIKELY))
            taken.update(map(id, (whole.one, *parts)))
    return proved


def _uses(lists: Iterable[Sequence[One]]) -> Counter[int]:
    """How often each tensor is in lists, most of which are one list: each is gone through once."""
    known: dict[int, Sequence[One]] = {}
    times: Counter[int] = Counter()
    for same in lists:
        known[id(same)] = same
        times[id(same)] += 1
    uses: Counter[int] = Counter()
    for key, same in known.items():
        for part in same:
            uses[id(part)] += times[key]
    return uses


def _telling(choice: Sequence[Sequence[One]]) -> bool:
    return all(same[0].tensor.numel >= TELLING for same in choice)


def _following(whole: _Whole, modules: Sequence[Path], index: _Index, side: int, slices: Slices) -> list[One]:
    """The parts in the modules that the example names, if the content agrees; else nothing."""
    parts, cuts, start = [], [], 0
    for module in modules:
        fits = [(size, part) for size, same in whole.parts.items() for part in index.below(module, same)]
        if len(fits) != 1:
            return []
        size, part = fits[0]
        parts.append(part)
        cuts.append((start, start + size))
        start += size
    if not parts or start != whole.one.tensor.shape[whole.dim]:
        return []
    texts = slices(_name(side), whole.one.side.index, whole.dim, cuts)
    return parts if list(texts) == [index.digests.get(part.side.index) for part in parts] else []


def _cut(whole: _Whole, index: _Index, side: int, slices: Slices) -> list[list[One]]:
    """For each part in turn the tensors with that content; nothing where some slice is nobody's."""
    length = whole.one.tensor.shape[whole.dim]
    choice: list[list[One]] = []
    start = 0
    while start < length and len(choice) < PARTS:
        sizes = [size for size in whole.sizes if start + size <= length]
        cuts = [(start, start + size) for size in sizes]
        texts = slices(_name(side), whole.one.side.index, whole.dim, cuts) if cuts else []
        fits = [
            (size, same)
            for size, text in zip(sizes, texts, strict=False)
            if (same := index.holding(text, whole.parts[size]))
        ]
        if not fits:
            return []
        # The largest part says most.
        size, same = max(fits, key=lambda fit: fit[0])
        choice.append(same)
        start += size
    return choice if start == length and len(choice) > 1 else []
