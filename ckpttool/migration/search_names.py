"""Partners by names, and by what stands around them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ckpttool.migration.inference import Link
from ckpttool.migration.links import Links, reshaping
from ckpttool.ops import Concat, Split
from ckpttool.pairing.contents import LIKELY, by_neighbours
from ckpttool.pairing.entries import Couple, One, Path, unique
from ckpttool.pairing.guesses import mirrored
from ckpttool.pairing.named import Counts, Moves, form
from ckpttool.pairing.places import by_place
from ckpttool.pairing.prefixes import by_prefix

NAMESAKE = 0.9
"""The score of equal names whose shapes differ in a way that one operation explains."""

COUNTED = 0.8
"""The score of equal names where the two sides count their layers differently."""


class ByName(Links):
    """The steps that look at names, forms and order."""

    def _by_name(self) -> None:
        doubtful = self._square_doubt()
        couples = [c for c in unique(self.rest, lambda one: one.side.key) if not doubtful(c)]
        self._by_same_name(couples, "same name and form", 1.0)

    def _by_same_name(self, couples: Sequence[Couple], why: str, score: float) -> None:
        """Couples that names join, unless the tensors around them went elsewhere."""
        moves, counts = Moves(self.proved), Counts(self.all)
        for couple in couples:
            moved, counted = moves.verdict(couple), counts.agree(couple)
            if moved is False or (not moved and counts.shrink(couple)):
                continue
            if form(couple[0]) != form(couple[1]):
                self._take_other_form(couple, why)
            elif score == 1 and self._sure(couple, moves, counted):
                told = "; its module's contents agree" if moved else ""
                self._add([couple], "certain", why + told, None, (), 1.0)
            else:
                told = "; contents differ" if counted else "; the two count their layers differently"
                self._add([couple], "likely", why + told, None, (), min(score, LIKELY if counted else COUNTED))

    def _sure(self, couple: Couple, moves: Moves, counted: bool) -> bool:
        """Whether equal names are certain: where contents prove others, but not this one, its own module has to be."""
        if self.proved and not self._equal(couple):
            return moves.verdict(couple, within=1) is True
        return moves.verdict(couple) is True or counted

    def _take_other_form(self, couple: Couple, why: str) -> None:
        """Equal names of another element type, or of a shape that is reversed or differs in axes of size 1."""
        a, b = couple
        told = why.removesuffix(" and form").replace(" and form ", " ")
        if a.tensor.dtype != b.tensor.dtype:
            if a.tensor.shape == b.tensor.shape:
                told += f"; {a.tensor.dtype.name} against {b.tensor.dtype.name}"
                self._add([couple], "likely", told, None, (), NAMESAKE)
        elif _reversed(a, b):
            self._add([couple], "likely", f"{told}, shape reversed", None, (1, 0), NAMESAKE)
        elif _squeezed(a.tensor.shape) == _squeezed(b.tensor.shape):
            told += ", shape differs in axes of size 1"
            self._add([couple], "likely", told, reshaping(couple, ()), (), NAMESAKE)

    def _square_doubt(self) -> Callable[[Couple], bool]:
        """Which square matrices may be transposed: all, where others under like names have their shapes reversed."""
        shapes = {(one.words[-3:], one.tensor.shape) for one in self.all[1]}
        turned = any(link.axes == (1, 0) for link in self.links) or any(
            _oblong(one.tensor.shape)
            and (one.words[-3:], one.tensor.shape[::-1]) in shapes
            and (one.words[-3:], one.tensor.shape) not in shapes
            for one in self.all[0]
        )

        def doubtful(couple: Couple) -> bool:
            shape = couple[0].tensor.shape
            return turned and len(shape) == 2 and shape[0] == shape[1] > 1 and not self._equal(couple)

        return doubtful

    def _by_neighbours(self) -> None:
        if self.texts:
            found = by_neighbours(self.rest, self.proved, self.texts)
            found = [c for c in found if c[0].tensor.shape == c[1].tensor.shape]
            self._take(found, "likely", "same content, in a module whose other tensors are known", LIKELY)

    def _by_prefix(self) -> None:
        doubtful = self._square_doubt()
        pairs, _, _ = by_place(self.rest)
        couples = [c for c in self._couples(pairs) if not doubtful(c)]
        self._by_same_name(couples, "same name and form behind a wrapper's prefix", 1.0)
        pairs, _, prefixes = by_prefix(self.rest)
        told = " and ".join(f"{one or other}" for one, other in prefixes)
        scores: dict[float, list[Couple]] = {}
        for pair, couple in zip(pairs, self._couples(pairs), strict=True):
            if not doubtful(couple):
                scores.setdefault(pair.score, []).append(couple)
        for score, some in scores.items():
            self._by_same_name(some, f"same name and form but for {told}", score)

    def _by_example(self) -> None:
        """Other tensors of modules that are known to be split or put together: their biases go the same way."""
        joined = [one for one in self.links if isinstance(one.op, (Split, Concat))]
        left = tuple(_by_words(side) for side in self.rest) if joined else ()
        modules = [_by_module(names) for names in left]
        for link in joined:
            split = isinstance(link.op, Split)
            olds, news = (
                [self._words(side, name)[:-1] for name in names] for side, names in enumerate((link.old, link.new))
            )
            mine, others = (olds[0], news) if split else (news[0], olds)
            for words in modules[not split].get(mine, ()):
                whole = self._last_free(left[not split][words])
                parts = [self._last_free(left[split].get((*module, words[-1]), ())) for module in others]
                if whole is not None and len(whole.tensor.shape) == 1 and None not in parts:
                    self._follow(whole, [part for part in parts if part is not None], split, link)

    def _last_free(self, some: Sequence[One]) -> One | None:
        return next((one for one in reversed(some) if id(one) not in self._gone), None)

    def _words(self, side: int, name: str) -> tuple[str, ...]:
        return self._named[side][name].words

    def _follow(self, whole: One, parts: Sequence[One], split: bool, link: Link) -> None:
        op = Concat(0) if not split else replace(link.op, dim=0) if isinstance(link.op, Split) else None
        sizes = [part.tensor.shape[0] for part in parts if len(part.tensor.shape) == 1]
        if len(sizes) == len(parts) and sum(sizes) == whole.tensor.shape[0]:
            couples = [(whole, part) if split else (part, whole) for part in parts]
            self._add(couples, "likely", "goes as its module's weight does", op, (), NAMESAKE)

    def _by_module(self) -> None:
        """Tensors of one form and last name in modules whose other tensors are known."""
        moves, counts, doubtful = Moves(self.proved), Counts(self.all), self._square_doubt()
        same = {id(one): "" for side in self.rest for one in side}
        for couple in by_neighbours(self.rest, self.couples, same):
            moved = moves.verdict(couple)
            lost = moved is False or (not moved and counts.shrink(couple))
            if not lost and form(couple[0]) == form(couple[1]) and not doubtful(couple):
                self._add([couple], "likely", "in a module whose other tensors are known", None, (), NAMESAKE)

    def _by_guess(self) -> None:
        if not (self.rest[0] and self.rest[1]):
            return
        doubtful = self._square_doubt()
        moves, counts = Moves(self.proved), Counts(self.all)
        pairs = mirrored(self.rest, self.couples, self.ordered)
        for pair, couple in zip(pairs, self._couples(pairs), strict=True):
            moved = moves.verdict(couple)
            lost = moved is False or (not moved and counts.shrink(couple))
            if not lost and form(couple[0]) == form(couple[1]) and not doubtful(couple):
                self._add([couple], "likely", "form, order and a similar name", None, (), pair.score)


def _by_words(side: Sequence[One]) -> dict[Path, list[One]]:
    found: dict[Path, list[One]] = defaultdict(list)
    for one in side:
        found[one.words].append(one)
    return found


def _by_module(names: Iterable[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = defaultdict(list)
    for words in names:
        found[words[:-1]].append(words)
    return found


def _reversed(a: One, b: One) -> bool:
    return _oblong(a.tensor.shape) and a.tensor.shape[::-1] == b.tensor.shape


def _oblong(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] != shape[1] and 1 not in shape


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
