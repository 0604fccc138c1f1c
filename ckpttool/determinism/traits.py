"""What a trace says of a tensor beside its digest: type, zeros, narrower types that would hold it. Pure.

A digest tells that two tensors differ, and these tell how: cast, underflowed, zeroed, without a process's rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Rows: TypeAlias = tuple[int, int, int]
"""The first row, the one after the last, and how many there are."""


@dataclass(frozen=True, slots=True)
class Trait:
    """A tensor of floating-point numbers: its type, how many numbers, how many are zero (few among many are not seen).

    ``fits``: narrower types that every number of it would survive; of a tensor that is all zero none is told.
    ``zero_rows``: the rows that are zero, where they follow on each other. ``piece``: the rows of a tensor spread over
    processes that this one holds, of which everything else here is told.
    """

    kind: str
    count: int
    zero: int = 0
    fits: tuple[str, ...] = ()
    zero_rows: Rows | None = None
    piece: Rows | None = None

    @property
    def is_zero(self) -> bool:
        return self.zero == self.count

    def facts(self) -> dict[str, object]:
        """As a line of a trace has it."""
        given = {"fits": [*self.fits], "zero_rows": self.zero_rows, "piece": self.piece}
        return {"type": self.kind, "of": self.count, "zero": self.zero} | {k: v for k, v in given.items() if v}


def read_traits(found: object) -> dict[str, Trait]:
    """The traits of a line by the names of tensors; none of a trace that was recorded before there were any.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` for what is none.
    """
    return {str(name): _trait(facts) for name, facts in found.items()} if isinstance(found, dict) else {}


def _trait(facts: Mapping[str, object]) -> Trait:
    fits = facts.get("fits")
    return Trait(
        str(facts["type"]),
        int(str(facts["of"])),
        int(str(facts["zero"])),
        tuple(map(str, fits)) if isinstance(fits, list) else (),
        _rows(facts.get("zero_rows")),
        _rows(facts.get("piece")),
    )


def _rows(found: object) -> Rows | None:
    if not isinstance(found, list):
        return None
    first, end, total = (int(str(number)) for number in found)
    return first, end, total


# --- several at once ---------------------------------------------------------------------------------------------


def narrowed(now: Collection[Trait]) -> str:
    """The narrower type that holds all of these numbers, the narrowest first; empty where there is none, or no number.

    A few numbers fit by chance, so few say nothing.
    """
    told = [trait for trait in now if not trait.is_zero]
    if sum(trait.count - trait.zero for trait in told) < FEW:
        return ""
    return next((kind for kind in NARROW if all(kind in trait.fits for trait in told)), "")


def share_of_zeros(traits: Iterable[Trait]) -> float:
    """Of all numbers the part that is zero."""
    pairs = [(trait.zero, trait.count) for trait in traits]
    return sum(zero for zero, _ in pairs) / max(1, sum(count for _, count in pairs))


FEW = 8
"""Numbers that may fit a narrower type by chance."""

NARROW = ("bfloat16", "float16")
