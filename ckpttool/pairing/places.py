"""Partners told by their names alone: equal, wrapped, or under the root of another section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from ckpttool.changes import Pair
from ckpttool.pairing.entries import Couple, One, Path, Rest, joined, unique, without

ROOTS = 8
"""Sections that may hold one and the same name and still be told apart by how many names they share."""

Prefixes: TypeAlias = "tuple[tuple[str, str], ...]"
Roots: TypeAlias = "tuple[Path, str]"


def by_place(rest: Rest) -> tuple[list[Pair], Rest, Prefixes]:
    """Equal names in other nesting, without wrappers, under other roots; linear in the names.

    A root stands for another where they share more names of equal shape than either shares with any other; roots
    of one role are matched first. Two that fit equally well (twins) are left to content.
    """
    plain = unique(rest, lambda one: one.side.key)
    pairs = [joined(couple, "name") for couple in plain]
    rest = without(rest, plain)
    bare = unique(rest, lambda one: (one.root, one.words))
    rest = without(rest, bare)
    for same_role in (True, False):
        for ours, theirs in _roots(rest, same_role):
            under = [o for o in rest[0] if _root(o) == ours], [o for o in rest[1] if _root(o) == theirs]
            found = unique(under, lambda one: one.words)
            bare.extend(found if same_role else [c for c in found if c[0].tensor.shape == c[1].tensor.shape])
        rest = without(rest, bare)
    pairs += [joined(c, "name" if c[0].worn == c[1].worn else "prefix") for c in bare]
    return pairs, rest, _taken_off([c for c in bare if c[0].worn != c[1].worn])


def _root(one: One) -> Roots:
    return one.root, one.side.section


def _roots(rest: Rest, same_role: bool) -> list[tuple[Roots, Roots]]:
    """Pairs of roots that are each other's best and only best, by names of equal shape."""
    holders = _holders(rest[0]), _holders(rest[1])
    votes: Counter[tuple[Roots, Roots]] = Counter()
    for name, ours in holders[0].items():
        theirs = holders[1].get(name, ())
        if len(ours) <= ROOTS and len(theirs) <= ROOTS:
            votes.update((a, b) for a in ours for b in theirs if (a[1] == b[1]) is same_role)
    best = _best(votes, 0), _best(votes, 1)
    return sorted((a, b) for a, b in votes if best[0][a] == b and best[1][b] == a)


def _holders(ones: Sequence[One]) -> dict[tuple[Path, Path | tuple[int, ...]], set[Roots]]:
    found: dict[tuple[Path, Path | tuple[int, ...]], set[Roots]] = {}
    for one in ones:
        found.setdefault((one.words, one.tensor.shape), set()).add(_root(one))
    return found


def _best(votes: Counter[tuple[Roots, Roots]], side: int) -> dict[Roots, Roots | None]:
    """For each root of a side the other's root that it shares most with; None for a draw."""
    top: dict[Roots, tuple[int, Roots | None]] = {}
    for pair, count in votes.items():
        mine, other = pair[side], pair[1 - side]
        most, _ = top.get(mine, (0, None))
        if count >= most:
            top[mine] = count, other if count > most else None
    return {root: other for root, (_, other) in top.items()}


def _taken_off(couples: Sequence[Couple]) -> Prefixes:
    """The wrappers that one side has and the other lacks, in the order of the keys, as one pair of prefixes."""
    if not couples:
        return ()
    ordered = sorted(couples, key=lambda couple: (couple[0].words, couple[0].worn, couple[1].worn))
    ours = dict.fromkeys(word for a, _ in ordered for word in a.worn)
    theirs = dict.fromkeys(word for _, b in ordered for word in b.worn)
    # The same wrappers in another order or another number of times are still what differs.
    common = set(ours) & set(theirs) if set(ours) != set(theirs) else set()
    return ((_dotted([w for w in ours if w not in common]), _dotted([w for w in theirs if w not in common])),)


def _dotted(words: Sequence[str]) -> str:
    return "".join(f"{word}." for word in words)
