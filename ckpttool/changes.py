"""The nouns of ``diff``: what is compared, how far two tensors are apart, what changed. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingABC
from dataclasses import field
from typing import Literal, TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.model import Json

Kind: TypeAlias = Literal[
    "added", "removed", "renamed", "moved", "retyped", "reshaped", "rewritten", "retied", "reordered", "edited"
]

KINDS: tuple[Kind, ...] = (
    "added",
    "removed",
    "renamed",
    "moved",
    "retyped",
    "reshaped",
    "rewritten",
    "retied",
    "reordered",
    "edited",
)
"""Every kind of change in the order in which the first that applies names a change."""

How: TypeAlias = Literal["name", "prefix", "content", "inferred", "parameter", "split", "concat"]
"""Why two entries stand for each other: equal keys, one wrapper prefix for all, equal content, shape + order +
similar names, one parameter of an optimizer, or content that is a part of the other's."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as equal: ``|a - b| <= atol + rtol * max(|a|, |b|)``, or at most ``ulp`` units apart.

    All zero means bitwise.
    """

    atol: float = 0.0
    rtol: float = 0.0
    ulp: int = 0

    @property
    def bitwise(self) -> bool:
        return not (self.atol or self.rtol or self.ulp)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two tensors of one shape are apart, from one pass. Indices count elements in row-major order.

    ``changed`` elements differ in their bits (after conversion to the wider type where types differ); NaN of the same
    bits is equal. ``beyond`` of them are outside of the tolerance. Numbers are over elements finite on both sides:
    ``max_rel`` is relative to ``max(|a|, |b|)``; ``rms`` of the differences; ``cosine`` is None where one side is all
    zero; ``max_ulp`` is None for types without units in the last place. ``first`` is the first changed element.
    ``scale`` is the larger of the two sides' root mean squares, None where it was not measured.
    ``new_nan`` elements are NaN in b only, ``lost_nan`` in a only; likewise ``new_inf`` and ``lost_inf``.
    ``compared`` below ``numel`` means that a side's bytes ended early.
    """

    numel: int
    compared: int
    changed: int
    beyond: int
    max_abs: float = 0.0
    mean_abs: float = 0.0
    max_rel: float = 0.0
    rms: float = 0.0
    cosine: float | None = None
    max_ulp: int | None = None
    first: int | None = None
    new_nan: int = 0
    lost_nan: int = 0
    new_inf: int = 0
    lost_inf: int = 0
    scale: float | None = None

    @property
    def relative(self) -> float:
        """How much of the tensor changed, 0 to 2: ``rms`` over ``scale``; the same for (a, b) and (b, a).

        Without ``scale`` the angle between the two sides stands in for it, which is blind to a common factor;
        1 where one side is all zero.
        """
        if not self.rms:
            return 0.0
        if self.scale:
            return min(self.rms / self.scale, 2.0)
        return 1.0 if self.cosine is None else math.sqrt(max(0.0, 2.0 - 2.0 * self.cosine))

    @property
    def equal(self) -> bool:
        """Whether every element was compared and none differs in its bits."""
        return self.compared == self.numel and not self.changed

    @property
    def close(self) -> bool:
        """Whether every element was compared and none is outside of the tolerance."""
        return self.compared == self.numel and not self.beyond


@dataclass(frozen=True, slots=True)
class Side:
    """One tensor on one side: its key, path, section and node index in its checkpoint."""

    key: str
    path: tuple[str, ...]
    index: int
    section: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two entries that stand for each other, how that is known and how surely (0 to 1; 1 is proved)."""

    a: Side
    b: Side
    how: How
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which tensors stand for which. Every tensor of either side is in exactly one place.

    ``prefixes`` are wrapper prefixes ``(a's, b's)`` that were taken off as one change.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[Side, ...]
    only_b: tuple[Side, ...]
    prefixes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two checkpoints. ``kinds`` holds all that apply, ``kind`` the first of them.

    ``key`` is b's (a's for what was removed), ``old_key`` a's where it differs. ``before`` and ``after`` describe
    the two sides. ``score`` below 1 marks what is inferred; ``note`` is a sentence for people.
    """

    kind: Kind
    kinds: tuple[Kind, ...]
    key: str
    old_key: str | None
    section: str
    before: Json = None
    after: Json = None
    difference: Difference | None = None
    score: float = 1.0
    note: str = ""
    facts: MappingABC[str, Json] = field(default_factory=dict, hash=False)
