"""Segments that stand in nearly all names of one side and make the whole difference to the other's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ckpttool.changes import Pair
from ckpttool.frozen import dataclass
from ckpttool.pairing.entries import Couple, One, Path, Rest, joined, unique, without
from ckpttool.pairing.names import is_index
from ckpttool.pairing.places import Prefixes

LONGEST = 4
"""Segments that a prefix may have."""

SAMPLE = 2000
"""Names that a prefix is looked for in; what is found is then tried on all."""

ROUNDS = 4
"""Prefixes that are looked for one after another, each in what the one before left."""

SURE = 3
"""Names of equal shape that have to fit before one prefix for all is as good as equal names."""


@dataclass(frozen=True, slots=True)
class _Insert:
    """Segments that a side has beyond the other: in front, or anywhere inside."""

    words: Path
    front: bool


def by_prefix(rest: Rest) -> tuple[list[Pair], Rest, Prefixes]:
    """Pairs once segments such as ``model.`` are taken off one side; at least half of a side's rest has to fit.

    The score is 1 where all of one side's rest fits, and below where some does not or there is little of it.
    """
    pairs: list[Pair] = []
    prefixes: list[tuple[str, str]] = []
    roles = sorted({one.side.section for one in rest[0]} & {one.side.section for one in rest[1]})
    for role in [*roles, None]:
        for _ in range(ROUNDS):
            part = _of_role(rest, role)
            couples, taken = _one_prefix(part)
            if not couples:
                break
            score = _score(couples, part)
            pairs += [joined(couple, "prefix", score) for couple in couples]
            prefixes.append(taken)
            rest = without(rest, couples)
    return pairs, rest, tuple(dict.fromkeys(prefixes))


def _of_role(rest: Rest, role: str | None) -> Rest:
    """Entries of one section; with None all that may change their section (no optimizer state becomes a weight)."""
    if role is not None:
        return [o for o in rest[0] if o.side.section == role], [o for o in rest[1] if o.side.section == role]
    return [o for o in rest[0] if _free(o)], [o for o in rest[1] if _free(o)]


def _free(one: One) -> bool:
    return one.side.section in ("weights", "ema", "other")


def _one_prefix(rest: Rest) -> tuple[list[Couple], tuple[str, str]]:
    """The insertion that most names agree on, and whom it joins; nothing if two fit equally well."""
    votes = {(insert, 0): n for insert, n in _votes(rest[0], rest[1]).items()}
    votes |= {(insert, 1): n for insert, n in _votes(rest[1], rest[0]).items()}
    if not votes:
        return [], ("", "")
    # A moving average carries the model's names too; it is not the model.
    most = max(votes.values())
    ranked = [((not _averaged(i), i.front), i, s) for (i, s), n in votes.items() if n == most]
    ranked.sort(key=lambda one: one[0], reverse=True)
    if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
        return [], ("", "")
    _, insert, longer = ranked[0]
    couples = _joined_by(insert, rest[longer], rest[1 - longer])
    if 2 * len(couples) < min(len(rest[0]), len(rest[1])):
        return [], ("", "")
    text = _text(couples, insert)
    return (couples, (text, "")) if longer == 0 else ([(b, a) for a, b in couples], ("", text))


def _text(couples: Sequence[Couple], insert: _Insert) -> str:
    """What the longer keys begin with beyond the shorter, wrappers included; else the insertion itself."""
    keys = [(_below_root(long), _below_root(short)) for long, short in couples]
    heads = {long.removesuffix(short) for long, short in keys if long.endswith(short)}
    if insert.front and len(heads) == 1 and all(long.endswith(short) for long, short in keys):
        return heads.pop()
    return "".join(f"{word}." for word in insert.words)


def _below_root(one: One) -> str:
    return ".".join(one.side.path[len(one.root) :])


def _averaged(insert: _Insert) -> bool:
    return any("ema" in word or "averag" in word for word in insert.words)


def _votes(longer: Sequence[One], shorter: Sequence[One]) -> Counter[_Insert]:
    names = {one.words: one.tensor.shape for one in shorter}
    votes: Counter[_Insert] = Counter()
    for one in _sampled(longer):
        votes.update({i for i, rest in _inserts(one.words) if names.get(rest) == one.tensor.shape})
    return votes


def _sampled(ones: Sequence[One]) -> Sequence[One]:
    """Evenly over the names in order, so that the order in the file does not matter."""
    if len(ones) <= SAMPLE:
        return ones
    ordered = sorted(ones, key=lambda one: one.words)
    return ordered[:: len(ordered) // SAMPLE]


def _inserts(words: Path) -> list[tuple[_Insert, Path]]:
    """Every way to take segments off: up to ``LONGEST`` in front, or one inside that is no number."""
    found = [(_Insert(words[:n], True), words[n:]) for n in range(1, min(LONGEST + 1, len(words)))]
    inside = ((p, words[p]) for p in range(1, len(words) - 1) if not is_index(words[p]))
    return found + [(_Insert((word,), False), words[:p] + words[p + 1 :]) for p, word in inside]


def _joined_by(insert: _Insert, longer: Sequence[One], shorter: Sequence[One]) -> list[Couple]:
    names = {one.words for one in shorter}
    bare = {id(one): _without(insert, one.words, names) for one in longer}
    bare |= {id(one): one.words for one in shorter}
    return unique((list(longer), list(shorter)), lambda one: bare[id(one)])


def _without(insert: _Insert, words: Path, names: set[Path]) -> Path | None:
    if insert.front:
        n = len(insert.words)
        return words[n:] if words[:n] == insert.words and len(words) > n else None
    cut = [words[:p] + words[p + 1 :] for p in range(1, len(words) - 1) if words[p] == insert.words[0]]
    return next((short for short in cut if short in names), None)


def _score(couples: Sequence[Couple], rest: Rest) -> float:
    """1 where nothing of one side is left over and most shapes agree; else the share that fits, at most 0.95."""
    smaller = min(len(rest[0]), len(rest[1]))
    alike = sum(a.tensor.shape == b.tensor.shape for a, b in couples)
    if len(couples) == smaller and alike >= SURE and 2 * alike >= len(couples):
        return 1.0
    share = len(couples) / smaller
    return round(min(0.95, 0.6 * share + 0.35 * min(1.0, alike / 8)), 3)
