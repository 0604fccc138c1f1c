"""Partners by what tensors hold: equal, turned, in parts, or nearly equal. Pure but for the evidence that it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ckpttool.changes import Pair
from ckpttool.expressions import Op
from ckpttool.migration.inference import Axes, Confidence, Evidence, SideName
from ckpttool.migration.links import Links, reshaping
from ckpttool.ops import Concat, Split, Stack, Unstack
from ckpttool.pairing.contents import LIKELY, TELLING, Content, by_content, flat
from ckpttool.pairing.entries import Couple, unique
from ckpttool.pairing.named import form, turned_copies
from ckpttool.pairing.near import by_nearness
from ckpttool.pairing.parts import by_parts
from ckpttool.pairing.turned import by_turning


class ByContent(Links):
    """The steps that look at contents."""

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
        self._take([c for c in proved if not alone(c)], "likely", "same content, which others have too", LIKELY)
        digests = content("b", [one.side.index for one in self.rest[1]])
        turned, _ = by_turning(self.rest, digests, evidence.turned, slices)
        for couple, axes in turned:
            self._take([couple], "certain", "same content, axes in another order", axes=axes)
        parts, _ = by_parts(self.rest, content, slices)
        self._take_parts(parts, ())
        self._by_turned_parts(evidence, content)

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
        whole, parts = (couples[0][0], [b for _, b in couples]) if split else (couples[0][1], [a for a, _ in couples])
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
        self._add([couple], "likely", why, reshaping(couple, axes), axes, _near_score(alike))
        self.proved.append(couple)


def _joining(shape: tuple[int, ...], parts: Sequence[tuple[int, ...]], split: bool) -> Op:
    """The operation between a whole and its parts."""
    if len(parts[0]) < len(shape):
        return Unstack(0) if split else Stack(0)
    dim = next(d for d, size in enumerate(shape) if parts[0][d] != size)
    sizes = tuple(part[dim] for part in parts)
    if not split:
        return Concat(dim)
    return Split(sections=len(sizes), dim=dim) if len(set(sizes)) == 1 else Split(sizes=sizes, dim=dim)


def _near_score(alike: float) -> float:
    return round(min(LIKELY, alike), 3)
