"""The search for partners, step by step, the surest first; each step has what the ones before it left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ckpttool.changes import Pair
from ckpttool.expressions import Form, Op
from ckpttool.migration.inference import Axes, Confidence, Evidence, Link, SideName
from ckpttool.ops import Concat, Reshape, Split, Stack, Unstack
from ckpttool.pairing.contents import LIKELY, TELLING, Content, by_content, by_neighbours, flat
from ckpttool.pairing.entries import Couple, One, Rest, unique, without
from ckpttool.pairing.guesses import mirrored
from ckpttool.pairing.named import Counts, Moves, form, turned_copies
from ckpttool.pairing.near import by_nearness
from ckpttool.pairing.parts import by_parts
from ckpttool.pairing.places import by_place
from ckpttool.pairing.prefixes import by_prefix
from ckpttool.pairing.turned import by_turning

Key: TypeAlias = "tuple[str, Form]"

NAMESAKE = 0.9
"""The score of equal names whose shapes differ in a way that one operation explains."""

COUNTED = 0.8
"""The score of equal names where the two sides count their layers differently."""


class Search:
    """Finds links between two lists of keys. ``rest`` is what has no partner yet.

    A link is certain in three cases only: exact content that is theirs alone and not one row over and over; equal
    names and forms (wrappers, or one prefix for all, aside) that no content contradicts, in modules that both sides
    count alike; equal names and forms in modules whose other tensors content has proved. Where contents tell of some
    tensors, what has another content than its namesake needs the latter. All else is likely at most.
    """

    def __init__(self, rest: Rest, evidence: Evidence | None, ordered: bool) -> None:
        self.all = rest
        self.rest = rest
        self.evidence = evidence
        self.ordered = ordered
        self.links: list[Link] = []
        self.couples: list[Couple] = []
        self.proved: list[Couple] = []
        self.texts: dict[int, str] = {}
        self._namesakes = _namesakes(rest)
        self._named = tuple({one.side.key: one for one in side} for side in rest)

    def run(self) -> None:
        """All steps."""
        if self.evidence is not None:
            self._read(self.evidence)
            self._by_content(self.evidence)
            self._by_nearness(self.evidence)
        self._by_name()
        self._by_prefix()
        self._by_neighbours()
        self._by_example()
        self._by_module()
        self._by_guess()

    # --- content ------------------------------------------------------------------------------------------

    def _read(self, evidence: Evidence) -> None:
        sides: tuple[SideName, SideName] = ("a", "b")
        for name, ones in zip(sides, self.rest, strict=True):
            found = evidence.digests(name, [one.side.index for one in ones if one.tensor.numel])
            self.texts |= {id(one): found[i] for one in ones if (i := one.side.index) in found}

    def _by_content(self, evidence: Evidence) -> None:
        def content(side: SideName, places: Sequence[int]) -> Mapping[int, str]:
            ones = self.all[side == "b"]
            return {at: self.texts[id(ones[at])] for at in places if id(ones[at]) in self.texts}

        def slices(side: SideName, place: int, dim: int, cuts: Sequence[tuple[int, int]]) -> Sequence[str]:
            return evidence.slices(side, place, (), dim, cuts)

        def telling(couple: Couple) -> bool:
            return couple[0].tensor.numel >= TELLING and not flat("a", couple[0], slices)

        same = [c for c in unique(self.rest, lambda one: one.side.key) if self._equal(c) and telling(c)]
        self._take(same, "certain", "same name, same content")
        pairs, _ = by_content(self.rest, content, slices)
        proved = self._couples([p for p in pairs if p.score == 1])
        # What others have too, if only under names that are settled already, proves nothing.
        alone = self._alone()
        self._take([c for c in proved if alone(c)], "certain", "same content")
        self._take(
            [c for c in proved if not alone(c)], "likely", "same content, which others have too", LIKELY
        )
        digests = content("b", [one.side.index for one in self.rest[1]])
        turned, _ = by_turning(self.rest, digests, evidence.turned, slices)
        for couple, axes in turned:
            self._take([couple], "certain", "same content, axes in another order", axes=axes)
        parts, _ = by_parts(self.rest, content, slices)
        self._take_parts(parts, ())
        self._by_turned_parts(evidence, content)

    def _equal(self, couple: Couple) -> bool:
        a, b = couple
        return form(a) == form(b) and id(a) in self.texts and self.texts[id(a)] == self.texts.get(id(b))

    def _alone(self) -> Callable[[Couple], bool]:
        counts = Counter(
            (side, one.tensor.dtype, self.texts[id(one)])
            for side in (0, 1)
            for one in self.all[side]
            if id(one) in self.texts
        )
        return lambda couple: all(
            counts[side, one.tensor.dtype, self.texts[id(one)]] == 1 for side, one in enumerate(couple)
        )

    def _by_turned_parts(self, evidence: Evidence, content: Content) -> None:
        """Splits and concatenations of transposed matrices."""
        copies = turned_copies(self.rest[0])
        if not copies or not self.rest[1]:
            return
        axes = (1, 0)
        asked = evidence.turned([(one.side.index, axes) for one in copies])

        def texts(side: SideName, places: Sequence[int]) -> Mapping[int, str]:
            if side == "b":
                return content(side, places)
            return {at: asked[at, axes] for at in places if (at, axes) in asked}

        def slices(side: SideName, place: int, dim: int, cuts: Sequence[tuple[int, int]]) -> Sequence[str]:
            return evidence.slices(side, place, axes if side == "a" else (), dim, cuts)

        pairs, _ = by_parts((copies, self.rest[1]), texts, slices)
        self._take_parts(pairs, axes)

    def _take_parts(self, pairs: Sequence[Pair], axes: Axes) -> None:
        """Splits and concatenations as links, one for each whole."""
        wholes: dict[tuple[bool, int], list[Pair]] = {}
        for pair in pairs:
            split = pair.how == "split"
            wholes.setdefault((split, pair.a.index if split else pair.b.index), []).append(pair)
        for (split, _), some in wholes.items():
            self._join(self._couples(some), split, axes, min(p.score for p in some), "same content, in parts")

    def _join(self, couples: Sequence[Couple], split: bool, axes: Axes, score: float, why: str) -> None:
        whole, parts = (
            (couples[0][0], [b for _, b in couples]) if split else (couples[0][1], [a for a, _ in couples])
        )
        shape = whole.tensor.shape
        shapes = [part.tensor.shape for part in parts]
        if axes:
            shape, shapes = (shape[::-1], shapes) if split else (shape, [s[::-1] for s in shapes])
        sure: Confidence = "certain" if score == 1 else "likely"
        self._add(couples, sure, why, _joining(shape, shapes, split), axes, score)
        self.proved += couples

    def _by_nearness(self, evidence: Evidence) -> None:
        """What training changed a little: never certain by itself."""
        for near in by_nearness(self.rest, evidence.alike):
            self._take_near((self.all[0][near.a.place], self.all[1][near.b.place]), near.a.axes, near.alike)
        wholes: dict[tuple[bool, int, Axes], list[tuple[Couple, float]]] = {}
        for near in by_nearness(self.rest, evidence.alike, parts=True):
            split = near.b.whole
            if near.a.whole != split:
                key = split, (near.a if split else near.b).place, near.a.axes
                couple = self.all[0][near.a.place], self.all[1][near.b.place]
                wholes.setdefault(key, []).append((couple, near.alike))
        for (split, _, axes), some in wholes.items():
            couples = [couple for couple, _ in some]
            if self._free(couples):
                alike = min(alike for _, alike in some)
                why = f"contents vary together, in parts (correlation {alike:.2f})"
                self._join(couples, split, axes, _near_score(alike), why)

    def _take_near(self, couple: Couple, axes: Axes, alike: float) -> None:
        if not self._free([couple]):
            return
        a, b = couple
        why = f"contents vary together (correlation {alike:.2f})"
        if (id(a), id(b)) in self._namesakes and not axes and form(a) == form(b):
            but = "" if a.side.key == b.side.key else " but for a prefix"
            self._add([couple], "certain", f"same name{but}, {why}", None, (), 1.0)
            self.proved.append(couple)
            return
        self._add([couple], "likely", why, _reshaping(couple, axes), axes, _near_score(alike))
        self.proved.append(couple)

    # --- names --------------------------------------------------------------------------------------------

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
                self._add(
                    [couple], "likely", why + told, None, (), min(score, LIKELY if counted else COUNTED)
                )

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
            self._add([couple], "likely", told, _reshaping(couple, ()), (), NAMESAKE)

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
        for link in [one for one in self.links if isinstance(one.op, (Split, Concat))]:
            split = isinstance(link.op, Split)
            left = tuple({one.words: one for one in side} for side in self.rest)
            wholes, parts = (left[0], left[1]) if split else (left[1], left[0])
            olds, news = (
                [self._words(side, name)[:-1] for name in names]
                for side, names in enumerate((link.old, link.new))
            )
            mine, others = (olds[0], news) if split else (news[0], olds)
            for words, whole in wholes.items():
                found = [parts.get((*module, words[-1])) for module in others]
                if words[:-1] == mine and len(whole.tensor.shape) == 1 and None not in found:
                    self._follow(whole, [part for part in found if part is not None], split, link)

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
        moves, counts = Moves(self.proved), Counts(self.all)
        same = {id(one): "" for side in self.rest for one in side}
        for couple in by_neighbours(self.rest, self.couples, same):
            moved = moves.verdict(couple)
            lost = moved is False or (not moved and counts.shrink(couple))
            if not lost and form(couple[0]) == form(couple[1]) and not self._square_doubt()(couple):
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

    # --- bookkeeping --------------------------------------------------------------------------------------

    def _couples(self, pairs: Sequence[Pair]) -> list[Couple]:
        return [(self.all[0][pair.a.index], self.all[1][pair.b.index]) for pair in pairs]

    def _free(self, couples: Sequence[Couple]) -> bool:
        left = {id(one) for side in self.rest for one in side}
        return all(id(one) in left for couple in couples for one in couple)

    def _take(
        self, couples: Sequence[Couple], sure: Confidence, why: str, score: float = 1.0, axes: Axes = ()
    ) -> None:
        """Couples one by one; what content proved says where the tensors around it went."""
        for couple in couples:
            self._add([couple], sure, why, _reshaping(couple, axes), axes, score)
        if sure == "certain":
            self.proved += couples

    def _add(
        self, couples: Sequence[Couple], sure: Confidence, why: str, op: Op | None, axes: Axes, score: float
    ) -> None:
        old = tuple(dict.fromkeys(a.side.key for a, _ in couples))
        new = tuple(dict.fromkeys(b.side.key for _, b in couples))
        self.links.append(Link(old, new, sure, why, op, axes, score))
        self.couples += couples
        self.rest = without(self.rest, couples)


def _namesakes(rest: Rest) -> set[tuple[int, int]]:
    """Couples of equal names: as they are, behind wrappers, or but for one prefix for all."""
    found = unique(rest, lambda one: one.side.key)
    places, _, _ = by_place(rest)
    prefixes, _, _ = by_prefix(without(rest, found))
    pairs = [*places, *(pair for pair in prefixes if pair.score == 1)]
    found += [(rest[0][pair.a.index], rest[1][pair.b.index]) for pair in pairs]
    return {(id(a), id(b)) for a, b in found}


def _joining(shape: tuple[int, ...], parts: Sequence[tuple[int, ...]], split: bool) -> Op:
    """The operation between a whole and its parts."""
    if len(parts[0]) < len(shape):
        return Unstack(0) if split else Stack(0)
    dim = next(d for d, size in enumerate(shape) if parts[0][d] != size)
    sizes = tuple(part[dim] for part in parts)
    if not split:
        return Concat(dim)
    return Split(sections=len(sizes), dim=dim) if len(set(sizes)) == 1 else Split(sizes=sizes, dim=dim)


def _reshaping(couple: Couple, axes: Axes) -> Op | None:
    shape = couple[0].tensor.shape
    turned = tuple(shape[axis] for axis in axes) if axes else shape
    return None if turned == couple[1].tensor.shape else Reshape(couple[1].tensor.shape)


def _reversed(a: One, b: One) -> bool:
    return _oblong(a.tensor.shape) and a.tensor.shape[::-1] == b.tensor.shape


def _oblong(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] != shape[1] and 1 not in shape


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _near_score(alike: float) -> float:
    return round(min(LIKELY, alike), 3)
