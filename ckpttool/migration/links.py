"""What a search has found, and what has no partner yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.changes import Pair
from ckpttool.expressions import Op
from ckpttool.migration.inference import Axes, Confidence, Evidence, Link
from ckpttool.ops import Reshape
from ckpttool.pairing.entries import Couple, Rest, unique, without
from ckpttool.pairing.named import form
from ckpttool.pairing.places import by_place
from ckpttool.pairing.prefixes import by_prefix


class Links:
    """Links that were found, and the tensors that have none. ``rest`` is what has no partner yet."""

    def __init__(self, rest: Rest, evidence: Evidence | None, ordered: bool) -> None:
        self.all = rest
        self._rest = rest
        self._gone: set[int] = set()
        self._is_old = False
        self.evidence = evidence
        self.ordered = ordered
        self.links: list[Link] = []
        self.couples: list[Couple] = []
        self.proved: list[Couple] = []
        self.texts: dict[int, str] = {}
        self._namesakes = _namesakes(rest)
        self._named = tuple({one.side.key: one for one in side} for side in rest)

    @property
    def rest(self) -> Rest:
        """What has no partner yet, in order; gone through anew only where some have found one since."""
        if self._is_old:
            ours, theirs = ([one for one in side if id(one) not in self._gone] for side in self._rest)
            self._rest, self._is_old = (ours, theirs), False
        return self._rest

    def _couples(self, pairs: Sequence[Pair]) -> list[Couple]:
        return [(self.all[0][pair.a.index], self.all[1][pair.b.index]) for pair in pairs]

    def _free(self, couples: Sequence[Couple]) -> bool:
        return not any(id(one) in self._gone for couple in couples for one in couple)

    def _equal(self, couple: Couple) -> bool:
        a, b = couple
        return form(a) == form(b) and id(a) in self.texts and self.texts[id(a)] == self.texts.get(id(b))

    def _take(self, couples: Sequence[Couple], sure: Confidence, why: str, score: float = 1.0, axes: Axes = ()) -> None:
        """Couples one by one; what content proved says where the tensors around it went."""
        for couple in couples:
            self._add([couple], sure, why, reshaping(couple, axes), axes, score)
        if sure == "certain":
            self.proved += couples

    def _add(
        self, couples: Sequence[Couple], sure: Confidence, why: str, op: Op | None, axes: Axes, score: float
    ) -> None:
        old = tuple(dict.fromkeys(a.side.key for a, _ in couples))
        new = tuple(dict.fromkeys(b.side.key for _, b in couples))
        self.links.append(Link(old, new, sure, why, op, axes, score))
        self.couples += couples
        self._gone.update(id(one) for couple in couples for one in couple)
        self._is_old = True


def _namesakes(rest: Rest) -> set[tuple[int, int]]:
    """Couples of equal names: as they are, behind wrappers, or but for one prefix for all."""
    found = unique(rest, lambda one: one.side.key)
    places, _, _ = by_place(rest)
    prefixes, _, _ = by_prefix(without(rest, found))
    pairs = [*places, *(pair for pair in prefixes if pair.score == 1)]
    found += [(rest[0][pair.a.index], rest[1][pair.b.index]) for pair in pairs]
    return {(id(a), id(b)) for a, b in found}


def reshaping(couple: Couple, axes: Axes) -> Op | None:
    """The reshape that leads from one to the other behind a change of axes; None where none is needed."""
    shape = couple[0].tensor.shape
    turned = tuple(shape[axis] for axis in axes) if axes else shape
    return None if turned == couple[1].tensor.shape else Reshape(couple[1].tensor.shape)
