"""Bare lists of names and forms as entries that look for their partners: no file, no sections, one state dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ckpttool.changes import Side
from ckpttool.expressions import Form
from ckpttool.model import Tensor
from ckpttool.pairing.entries import Couple, One, Path, Rest
from ckpttool.pairing.names import WRAPPERS, is_index


def ones(items: Iterable[tuple[str, Form]]) -> list[One]:
    """Names in order as entries; ``side.key`` is the name, ``side.index`` its place."""
    return [_one(at, name, form) for at, (name, form) in enumerate(items)]


def _one(at: int, name: str, form: Form) -> One:
    words = tuple(name.split("."))
    worn = tuple(word for word in words if word in WRAPPERS)
    bare = tuple(word for word in words if word not in WRAPPERS) if worn else words
    tensor = Tensor(form.dtype, form.shape, _strides(form.shape), 0, None)
    return One(Side(name, (name,), at, "weights"), tensor, at, (), bare or words, worn)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


def form(one: One) -> Form:
    """Element type and shape of an entry."""
    return Form(one.tensor.dtype, one.tensor.shape)


class Moves:
    """What proved couples say about others: whether their modules stayed together.

    >>> moves = Moves(proved)  # doctest: +SKIP
    >>> moves.verdict(couple)  # doctest: +SKIP
    """

    def __init__(self, proved: Sequence[Couple]) -> None:
        self._old: dict[Path, set[Path]] = {}
        self._new: dict[Path, set[Path]] = {}
        # Ten thousand layers of one list ask about the same two lists.
        self._told: dict[tuple[Path, Path], bool] = {}
        for a, b in proved:
            for known, mine, other in ((self._old, a.words, b.words), (self._new, b.words, a.words)):
                for n in range(1, len(mine)):
                    known.setdefault(mine[:n], set()).add(other)

    def verdict(self, couple: Couple, within: int = 1 << 30) -> bool | None:
        """Whether the tensors proved nearest to both stand for each other's neighbours; None where there are none.

        Nearest are those below the innermost modules around both that hold any, up to ``within`` levels out.
        """
        a, b = couple[0].words, couple[1].words
        for depth in range(1, min(len(a), len(b), within + 1)):
            ours, theirs = a[:-depth], b[:-depth]
            forth, back = self._old.get(ours, set()), self._new.get(theirs, set())
            if forth or back:
                if (ours, theirs) not in self._told:
                    self._told[ours, theirs] = _all_below(theirs, forth) and _all_below(ours, back)
                return self._told[ours, theirs]
        return None


def _all_below(module: Path, names: Iterable[Path]) -> bool:
    return all(name[: len(module)] == module for name in names)


class Counts:
    """Whether two sides count their layers alike: where they do not, equal numbers say nothing."""

    def __init__(self, rest: Rest) -> None:
        self._sides = _counted(rest[0]), _counted(rest[1])
        # Ten thousand layers of one list ask for the same two lists of ten thousand numbers.
        self._known: dict[tuple[int, int], tuple[bool, bool]] = {}

    def lists(self, couple: Couple) -> Iterator[tuple[set[str], set[str]]]:
        """The numbers beside each of the couple's, a's and b's: of modules, and of those that hold such a tensor.

        Numbers are aligned from the end; names that have not equally many are not aligned at all.
        """
        places = [[at for at, word in enumerate(one.words) if is_index(word)] for one in couple]
        if len(places[0]) != len(places[1]):
            return
        for ours, theirs in zip(*places, strict=True):
            a, b = (one.words for one in couple)
            yield self._sides[0][a[:ours], ()], self._sides[1][b[:theirs], ()]
            yield self._sides[0][a[:ours], a[ours + 1 :]], self._sides[1][b[:theirs], b[theirs + 1 :]]

    def agree(self, couple: Couple) -> bool:
        """Whether all lists of numbers are the same on both sides."""
        return all(self._compared(*both)[0] for both in self.lists(couple))

    def shrink(self, couple: Couple) -> bool:
        """Whether b lacks a number that a has: which of them stayed is then not told by the numbers."""
        return any(not self._compared(*both)[1] for both in self.lists(couple))

    def _compared(self, ours: set[str], theirs: set[str]) -> tuple[bool, bool]:
        """Whether two lists, which live as long as this, are equal; and whether the second holds all of the first."""
        key = id(ours), id(theirs)
        if key not in self._known:
            self._known[key] = ours == theirs, ours <= theirs
        return self._known[key]


def _counted(side: Sequence[One]) -> dict[tuple[Path, Path], set[str]]:
    """The numbers below each module; and those under which each tail of a name stands there."""
    found: dict[tuple[Path, Path], set[str]] = {}
    for one in side:
        for place, word in enumerate(one.words):
            if is_index(word):
                found.setdefault((one.words[:place], ()), set()).add(word)
                found.setdefault((one.words[:place], one.words[place + 1 :]), set()).add(word)
    return found


def turned_copies(side: Sequence[One]) -> list[One]:
    """Matrices as they would be transposed, under the same places."""
    found = []
    for one in side:
        shape = one.tensor.shape
        if len(shape) == 2 and 1 not in shape:
            tensor = replace(one.tensor, shape=shape[::-1], stride=_strides(shape[::-1]))
            found.append(replace(one, tensor=tensor))
    return found
