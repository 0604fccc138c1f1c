"""Names generalised: what a list of ``old → new`` has in common, as few patterns. Pure.

``layers.0.attn.q → h.0.q`` and its like in other layers become ``layers.{i}.attn.q → h.{i}.q``; numbers that differ
by the same amount everywhere become arithmetic.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.migration.inference import Move
from ckpttool.migration.patterns import escape

Names: TypeAlias = "tuple[str, ...]"

ALTERNATIVES = 8
"""Last segments that one pattern lists beside each other."""

LETTERS = "ijklmnopabcdefghqrstuvwxyz"
"""Names for numbers; a name with more of them is written as it is."""

_DIGITS = re.compile(r"[0-9]+")
_LETTER = re.compile(r"\{([a-z])")
_ODD = re.compile(r"[{}*\\|\s]")


@dataclass(frozen=True, slots=True)
class Shape:
    """Patterns that stand for ``moves``: of their old names and of their new ones."""

    old: Names
    new: Names
    moves: tuple[Move, ...]


def exact(move: Move) -> Shape:
    """The patterns that stand for this very move."""
    return Shape(tuple(map(escape, move.old)), tuple(map(escape, move.new)), (move,))


def shapes(moves: Sequence[Move]) -> list[Shape]:
    """Patterns that stand for all of the moves, each for as many as differ in numbers alone, in order. Linear."""
    groups: dict[object, list[Move]] = defaultdict(list)
    odd: list[Move] = []
    for move in moves:
        if any(_ODD.search(name) for name in (*move.old, *move.new)):
            odd.append(move)
        else:
            groups[_blank(move.old), _blank(move.new)].append(move)
    return [shape for some in groups.values() for shape in _fitted(some)] + [exact(move) for move in odd]


def _blank(names: Names) -> Names:
    return tuple(_DIGITS.sub("#", name) for name in names)


def _numbers(names: Names) -> list[str]:
    return [number for name in names for number in _DIGITS.findall(name)]


def _fitted(moves: Sequence[Move]) -> Iterator[Shape]:
    """One shape where every number follows from the first name's; else one for each value of what does not follow."""
    if len(moves) == 1:
        yield exact(moves[0])
        return
    lead = [_numbers(move.old[:1]) for move in moves]
    rest = [_numbers((*move.old[1:], *move.new)) for move in moves]
    free = [s for s in range(len(lead[0])) if len({row[s] for row in lead}) > 1]
    if len(free) > len(LETTERS):
        yield from map(exact, moves)
        return
    letters = {slot: LETTERS[at] for at, slot in enumerate(free)}
    texts = [f"{{{letters[s]}}}" if s in letters else lead[0][s] for s in range(len(lead[0]))]
    for slot in range(len(rest[0])):
        text = _following([row[slot] for row in rest], lead, letters)
        if text is None:
            yield from _apart(moves, [row[slot] for row in rest], [row[free[0]] for row in lead] if free else None)
            return
        texts.append(text)
    yield _written(moves, texts)


def _following(column: Sequence[str], lead: Sequence[Sequence[str]], letters: dict[int, str]) -> str | None:
    """How a number follows: always the same, equal to one of the first name's, or apart from it by the same amount."""
    if len(set(column)) == 1:
        return column[0]
    for slot, letter in letters.items():
        if all(row[slot] == number for row, number in zip(lead, column, strict=True)):
            return f"{{{letter}}}"
    for slot, letter in letters.items():
        pairs = [(row[slot], number) for row, number in zip(lead, column, strict=True)]
        apart = {int(number) - int(known) for known, number in pairs if len(known) < 10 and len(number) < 10}
        plain = all(str(int(text)) == text for pair in pairs for text in pair)
        if len(apart) == 1 and plain and all(len(text) < 10 for pair in pairs for text in pair):
            step = apart.pop()
            return f"{{{letter}{step:+d}}}"
    return None


def _apart(moves: Sequence[Move], column: Sequence[str], lead: Sequence[str] | None) -> Iterator[Shape]:
    """The moves by what the number that does not follow is; one by one where that says nothing."""
    groups: dict[object, list[Move]] = defaultdict(list)
    for move, number, first in zip(moves, column, lead or column, strict=True):
        groups[number, first].append(move)
    for some in groups.values():
        if len(some) == len(moves):
            yield from map(exact, some)
        else:
            yield from _fitted(some)


def _written(moves: Sequence[Move], texts: Sequence[str]) -> Shape:
    left = iter(texts)
    old = tuple(_DIGITS.sub(lambda _: next(left), name) for name in moves[0].old)
    new = tuple(_DIGITS.sub(lambda _: next(left), name) for name in moves[0].new)
    return Shape(old, new, tuple(moves))


# --- modules instead of tensors ----------------------------------------------------------------------------------


def by_core(found: Sequence[Shape]) -> list[list[Shape]]:
    """One-to-one shapes in groups that one renaming of a tree of modules explains, in order."""
    cores: dict[tuple[Names, Names], list[Shape]] = defaultdict(list)
    for shape in found:
        cores[_core(shape.old[0], shape.new[0])].append(shape)
    return list(cores.values())


def by_module(found: Sequence[Shape]) -> list[list[Shape]]:
    """The same in groups of one module's tensors."""
    modules: dict[tuple[str, str], list[Shape]] = defaultdict(list)
    for shape in found:
        modules[shape.old[0].rpartition(".")[0], shape.new[0].rpartition(".")[0]].append(shape)
    return list(modules.values())


def under(some: Sequence[Shape]) -> Shape | None:
    """``a.{rest...} → b.{rest...}`` for shapes that end alike; None where that would lose something."""
    moves = tuple(move for shape in some for move in shape.moves)
    tails = [_tail(shape) for shape in some]
    core = _core(some[0].old[0], some[0].new[0])
    if len({(shape.old[0].rpartition(".")[0], shape.new[0].rpartition(".")[0]) for shape in some}) == 1:
        core = _heads(some[0])
    letters = set(_LETTER.findall(".".join(core[1])))
    # A number that only the common end tells would be lost with it.
    lost = not letters <= set(_LETTER.findall(".".join(core[0])))
    if lost or not all(tails) or any(_ODD.search(name) for move in moves for name in (*move.old, *move.new)):
        return None
    return _under(core, "{rest...}", moves)


def leaves_of(some: Sequence[Shape]) -> Shape | None:
    """``a.{weight|bias} → b.{weight|bias}`` for shapes of one module whose last segments are the same on both sides."""
    ends = [(shape.old[0].rpartition("."), shape.new[0].rpartition(".")) for shape in some]
    words = [old[2] for old, _ in ends]
    same = all(old[2] == new[2] for old, new in ends)
    if not same or not 1 < len(words) <= ALTERNATIVES or any("{" in word or not word for word in words):
        return None
    core = tuple(tuple(part.split(".")) if part else () for part in (ends[0][0][0], ends[0][1][0]))
    return _under((core[0], core[1]), "{" + "|".join(words) + "}", tuple(m for s in some for m in s.moves))


def _core(old: str, new: str) -> tuple[Names, Names]:
    """What is left of two patterns without the segments that they end alike in."""
    a, b = old.split("."), new.split(".")
    same = 0
    while same < min(len(a), len(b)) and a[-1 - same] == b[-1 - same]:
        same += 1
    return tuple(a[: len(a) - same]), tuple(b[: len(b) - same])


def _heads(shape: Shape) -> tuple[Names, Names]:
    """Both patterns without their last segments."""
    return tuple(shape.old[0].split(".")[:-1]), tuple(shape.new[0].split(".")[:-1])


def _tail(shape: Shape) -> Names:
    """The segments that both patterns end alike in."""
    words = shape.old[0].split(".")
    return tuple(words[len(_core(shape.old[0], shape.new[0])[0]) :])


def _under(core: tuple[Names, Names], tail: str, moves: tuple[Move, ...]) -> Shape:
    old, new = (".".join([*words, tail]) for words in core)
    return Shape((old,), (new,), moves)
