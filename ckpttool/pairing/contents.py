"""Partners told by equal content: proved where it is theirs alone, likely where names say which of several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from ckpttool.changes import Pair
from ckpttool.pairing.entries import Couple, One, Path, Rest, joined, unique, without
from ckpttool.pairing.names import template

SideName: TypeAlias = Literal["a", "b"]
Content: TypeAlias = Callable[[SideName, Sequence[int]], Mapping[int, str]]
Cuts: TypeAlias = "Sequence[tuple[int, int]]"
Slices: TypeAlias = Callable[[SideName, int, int, Cuts], Sequence[str]]

TELLING = 16
"""Elements below which equal content may be chance: steps, temperatures, counters."""

LIKELY = 0.95
"""The score where content is equal, but not theirs alone, and the names around say who belongs together."""

Digests: TypeAlias = "dict[int, str]"


def by_content(rest: Rest, content: Content, slices: Slices | None) -> tuple[list[Pair], Rest]:
    """Renamed and unchanged tensors. Content is asked for where type and element count occur on both sides.

    A pair scores 1 where no other tensor of either rest has that content and it is not one value or one row over
    and over, as far as can be told: without ``slices`` that is not known and fewer elements than ``TELLING`` count.
    """
    digests = _digests("a", rest, content), _digests("b", rest, content)
    texts = {id(one): text for side in (0, 1) for one, text in _known(rest[side], digests[side])}
    alone = unique(rest, lambda one: _mark(one, texts))
    proved = [c for c in alone if not _shallow(c, slices)]
    rest = without(rest, proved)
    likely = by_neighbours(rest, proved, texts)
    pairs = [joined(couple, "content") for couple in proved]
    return pairs + [joined(couple, "content", LIKELY) for couple in likely], without(rest, likely)


def _digests(side: SideName, rest: Rest, content: Content) -> Digests:
    mine, other = rest if side == "a" else (rest[1], rest[0])
    possible = {_size(one) for one in other}
    wanted = sorted({one.side.index for one in mine if _size(one) in possible and one.tensor.numel})
    return dict(content(side, wanted)) if wanted else {}


def _size(one: One) -> tuple[str, int]:
    return one.tensor.dtype.name, one.tensor.numel


def _known(ones: Iterable[One], digests: Digests) -> Iterable[tuple[One, str]]:
    return ((one, digests[one.side.index]) for one in ones if one.side.index in digests)


def _mark(one: One, texts: Mapping[int, str]) -> tuple[str, int, str] | None:
    text = texts.get(id(one))
    return None if text is None else (*_size(one), text)


def _shallow(couple: Couple, slices: Slices | None) -> bool:
    """Whether the content is too little to prove anything: few elements, or one row over and over."""
    one = couple[0]
    return one.tensor.numel < TELLING or (slices is not None and flat("a", one, slices))


def flat(side: SideName, one: One, slices: Slices) -> bool:
    """Whether a tensor has equal rows at both ends and between: ones, zeros, an untouched table."""
    dim = next((d for d, size in enumerate(one.tensor.shape) if size > 1), None)
    if dim is None:
        return False
    size = one.tensor.shape[dim]
    step = size // 2 if one.tensor.numel == size else 1
    cuts = [(0, step), (step, 2 * step), (size - step, size)]
    return len(set(slices(side, one.side.index, dim, cuts))) == 1


def by_neighbours(rest: Rest, known: Sequence[Couple], texts: Mapping[int, str]) -> list[Couple]:
    """Tensors of equal content whose module's other tensors, or its like in other layers, are paired already."""
    if not known:
        return []
    partner = _consistent((a.words[:-1], b.words[:-1]) for a, b in known)
    like = _consistent((template(a.words[:-1])[0], template(b.words[:-1])[0]) for a, b in known)
    theirs = {id(one): (one.words, _mark(one, texts)) for one in rest[1]}

    def expected(one: One) -> Hashable:
        mark = _mark(one, texts)
        if id(one) in theirs:
            return theirs[id(one)] if mark else None
        module = partner.get(one.words[:-1]) or _translated(one.words[:-1], like)
        return ((*module, one.words[-1]), mark) if module and mark else None

    return unique(rest, expected)


def _consistent(pairs: Iterable[tuple[Path, Path]]) -> dict[Path, Path]:
    """The pairs in which either side has but one partner."""
    forth: dict[Path, set[Path]] = defaultdict(set)
    back: dict[Path, set[Path]] = defaultdict(set)
    for a, b in pairs:
        forth[a].add(b)
        back[b].add(a)
    return {a: next(iter(bs)) for a, bs in forth.items() if len(bs) == 1 and len(back[next(iter(bs))]) == 1}


def _translated(words: Path, like: Mapping[Path, Path]) -> Path | None:
    """A module's name as its like in other layers is named, with the same numbers."""
    pattern, numbers = template(words)
    other = like.get(pattern)
    if other is None or other.count("#") != len(numbers):
        return None
    left = iter(numbers)
    return tuple(str(next(left)) if word == "#" else word for word in other)
