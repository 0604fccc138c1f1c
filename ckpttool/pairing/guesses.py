"""Partners inferred where content changed too: type, shape, names and order, whole modules of all layers at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ckpttool.changes import Pair
from ckpttool.frozen import dataclass
from ckpttool.pairing.assignment import assign
from ckpttool.pairing.entries import Couple, One, Path, Rest, joined, without
from ckpttool.pairing.names import CLASH, INDEX, likeness, natural, template
from ckpttool.pairing.units import Unit, modules, single_modules, singles, tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = "NDArray[np.float64]"

THRESHOLD = 0.5
"""The score below which two tensors stay removed and added."""

HIGHEST = 0.99
"""No guess is certain."""

SHIFTED = 3
"""Layers that have to be as many on both sides before different numbers may stand for each other."""

NAMED = 0.3
"""How alike the names of two modules have to be: shape and order alone are no evidence."""

CROWD = 500
"""Units of one shape that are weighed against each other; more of them are aligned in order."""

Known: TypeAlias = "Counter[tuple[Path, Path]]"


@dataclass(frozen=True, slots=True)
class _Guess:
    """Two units, how alike they and their names alone are, and how clear it is that no others fit."""

    a: Unit
    b: Unit
    alike: float
    named: float
    clear: float


def by_guess(rest: Rest, known: Sequence[Couple], ordered: bool) -> tuple[list[Pair], Rest]:
    """Pairs below 1 by likeness: modules with the same tensors in them, then tensors of all layers, then single ones.

    Each step learns from the pairs before it which names stand for which. ``ordered`` says that order in both files
    is evidence. Bounded by ``CROWD`` for each shape: beyond that linear.
    """
    ordered = ordered and not _alphabetic(rest[0]) and not _alphabetic(rest[1])
    pairs: list[Pair] = []
    rest = [o for o in rest[0] if _guessable(o)], [o for o in rest[1] if _guessable(o)]
    learned = _learned(known)
    for level in (modules, single_modules, tensors, singles):
        for _ in range(2):
            guesses = _guesses(level(rest[0]), level(rest[1]), learned, ordered)
            scored = [(c, s) for g in guesses for c, s in _scored(g) if s >= THRESHOLD]
            pairs += [joined(couple, "inferred", score) for couple, score in scored]
            couples = [couple for couple, _ in scored]
            learned += _learned(couples)
            rest = without(rest, couples)
    return pairs, rest


def mirrored(rest: Rest, known: Sequence[Couple], ordered: bool) -> list[Pair]:
    """``by_guess`` from the side whose names come first, so that the sides may change places."""
    names = tuple(sorted((one.side.key, one.tensor.shape) for one in side) for side in rest)
    if names[0] <= names[1]:
        return by_guess(rest, known, ordered)[0]
    pairs, _ = by_guess((rest[1], rest[0]), [(b, a) for a, b in known], ordered)
    return [Pair(pair.b, pair.a, pair.how, pair.score) for pair in pairs]


def _alphabetic(ones: Sequence[One]) -> bool:
    """Whether somebody sorted the keys: their order then says nothing about the model."""
    keys = [one.side.key for one in ones]
    return keys == sorted(keys)


def _guessable(one: One) -> bool:
    return one.side.section in ("weights", "ema", "other") and one.tensor.numel > 0


def _learned(couples: Iterable[Couple]) -> Known:
    """Which module patterns stand for which: votes for the modules and for what is up to their last number."""
    patterns = {(template(a.words[:-1])[0], template(b.words[:-1])[0]) for a, b in couples}
    votes: Known = Counter(patterns)
    votes.update((_scope(a), _scope(b)) for a, b in patterns)
    return votes


def _scope(pattern: Path) -> Path:
    """A pattern up to its last number; without one, nothing."""
    return pattern[: len(pattern) - pattern[::-1].index(INDEX)] if INDEX in pattern else ()


def _guesses(ours: list[Unit], theirs: list[Unit], learned: Known, ordered: bool) -> list[_Guess]:
    groups: dict[Hashable, tuple[list[Unit], list[Unit]]] = defaultdict(lambda: ([], []))
    for side, units in enumerate((ours, theirs)):
        # The order of names, so that ties never depend on the order in a file.
        for unit in sorted(units, key=lambda unit: natural(unit.pattern)):
            groups[unit.kind][side].append(unit)
    guesses: list[_Guess] = []
    for a, b in groups.values():
        if a and b:
            crowded = max(len(a), len(b)) > CROWD
            guesses += _aligned(a, b, ordered) if crowded else _weighed(a, b, learned, ordered)
    return guesses


def _weighed(a: list[Unit], b: list[Unit], learned: Known, ordered: bool) -> list[_Guess]:
    alike = 0.7 * likeness([u.pattern for u in a], [u.pattern for u in b]) + 0.3 * _overlap(a, b)
    if ordered:
        alike = 0.85 * alike + 0.15 * _order(a, b)
    named = likeness([u.module for u in a], [u.module for u in b])
    known, clashes = _taught(a, b, learned)
    clashes *= _numbered(a, b)
    alike, named = (0.8 * alike + 0.2 * known) * clashes, named * clashes
    return [_Guess(a[i], b[j], float(alike[i, j]), float(named[i, j]), clear) for i, j, clear in assign(alike)]


def _overlap(a: list[Unit], b: list[Unit]) -> Matrix:
    """The share of numbers (layers) that two units have in common."""
    import numpy as np

    sets = [[frozenset(u.members) for u in units] for units in (a, b)]
    kinds = [{s: i for i, s in enumerate(dict.fromkeys(side))} for side in sets]
    small = np.array([[len(x & y) / len(x | y) for y in kinds[1]] for x in kinds[0]], dtype=np.float64)
    return small[np.ix_([kinds[0][s] for s in sets[0]], [kinds[1][s] for s in sets[1]])]


def _order(a: list[Unit], b: list[Unit]) -> Matrix:
    """How close the places of two units are, each among its own kind in its own file."""
    import numpy as np

    ranks = []
    for units in (a, b):
        ats = np.array([unit.at for unit in units])
        ranks.append(np.argsort(np.argsort(ats)) / max(1, len(units) - 1))
    return 1.0 - np.abs(ranks[0][:, None] - ranks[1][None, :])


def _numbered(a: list[Unit], b: list[Unit]) -> Matrix:
    """A factor below 1 where two names count alike, but to different numbers."""
    import numpy as np

    ours, theirs = ([template(unit.pattern)[1] for unit in units] for units in (a, b))
    if not any(ours) or not any(theirs):
        return np.ones((len(a), len(b)))
    return np.array([[CLASH if x != y and len(x) == len(y) else 1.0 for y in theirs] for x in ours])


def _taught(a: list[Unit], b: list[Unit], learned: Known) -> tuple[Matrix, Matrix]:
    """How far pairs known already agree, 0 to 1, and a factor below 1 where a module has another partner. Symmetric."""
    import numpy as np

    totals = Counter[Path](), Counter[Path]()
    for pair, votes in learned.items():
        totals[0][pair[0]] += votes
        totals[1][pair[1]] += votes

    def share(x: Path, y: Path) -> float:
        most = max(totals[0][x], totals[1][y])
        return learned[x, y] / most if most else 0.5

    def shares(ours: list[Path], theirs: list[Path]) -> Matrix:
        rows = {x: {y: share(x, y) for y in set(theirs)} for x in set(ours)}
        return np.array([[rows[x][y] for y in theirs] for x in ours], dtype=np.float64)

    modules = shares([u.module for u in a], [u.module for u in b])
    scopes = shares([_scope(u.pattern) for u in a], [_scope(u.pattern) for u in b])
    return 0.6 * modules + 0.4 * scopes, np.where(modules == 0, CLASH, 1.0)


def _aligned(a: list[Unit], b: list[Unit], ordered: bool) -> list[_Guess]:
    """As many on either side, one after another: in the files' order where it says something, else by name."""
    from rapidfuzz.distance import Indel

    if len(a) != len(b):
        return []
    if ordered:
        a, b = sorted(a, key=lambda u: u.at), sorted(b, key=lambda u: u.at)
    alike = [Indel.normalized_similarity(x.module, y.module) for x, y in zip(a, b, strict=True)]
    return [_Guess(x, y, some, some, 0.5) for x, y, some in zip(a, b, alike, strict=True)]


def _scored(guess: _Guess) -> list[tuple[Couple, float]]:
    """The tensors of two units with their score: likeness, clearness, and how many layers say the same."""
    members = _members(guess.a, guess.b)
    support = min(1.0, len(members) / 8)
    base = 0.3 * guess.alike + 0.4 * guess.named + 0.3 * guess.clear
    if guess.named < NAMED:
        return []
    # A draw stays one however many layers it holds for.
    score = base + (1 - base) * 0.4 * support * guess.clear
    score = round(min(HIGHEST, score if guess.clear > 0.1 else score / 2), 3)
    return [((one, theirs[leaf]), score) for ours, theirs in members for leaf, one in ours.items()]


def _members(a: Unit, b: Unit) -> list[tuple[dict[str, One], dict[str, One]]]:
    """Layer by layer: those with the same numbers, or one after another where none has and they are as many."""
    common = sorted(a.members.keys() & b.members.keys())
    if common:
        return [(a.members[n], b.members[n]) for n in common]
    if len(a.members) != len(b.members) or len(a.members) < SHIFTED:
        return []
    return [(a.members[x], b.members[y]) for x, y in zip(sorted(a.members), sorted(b.members), strict=True)]
