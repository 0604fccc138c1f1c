"""The nouns of finding a mapping: what is known of contents, which keys stand for which, what has to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from ckpttool.expressions import Op
from ckpttool.frozen import dataclass
from ckpttool.migration.rule_nouns import Rule
from ckpttool.pairing.near import View
from ckpttool.rewriting import Rewriting

if TYPE_CHECKING:
    from ckpttool.pairing.near import Matrix

Confidence: TypeAlias = Literal["certain", "likely"]
SideName: TypeAlias = Literal["a", "b"]
Axes: TypeAlias = "tuple[int, ...]"


class Evidence(Protocol):
    """Contents of both sides, asked by a tensor's place: ``a`` is what is migrated, ``b`` what it shall become."""

    def digests(self, side: SideName, places: Sequence[int]) -> Mapping[int, str]:
        """Digests of row-major contents, as many as can be read."""
        ...

    def slices(
        self, side: SideName, place: int, axes: Axes, dim: int, cuts: Sequence[tuple[int, int]]
    ) -> Sequence[str]:
        """Digests of ``[start, stop)`` along ``dim`` once the axes are in this order; none for what is unreadable."""
        ...

    def turned(self, views: Sequence[tuple[int, Axes]]) -> Mapping[tuple[int, Axes], str]:
        """Digests of a's contents with their axes in another order."""
        ...

    def alike(self, a: Sequence[View], b: Sequence[View]) -> Matrix:
        """How far each of ``a`` varies together with each of ``b``, all of one shape: correlations of samples."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """Keys that become other keys, through ``op`` or, without one, as they are.

    Several ``old`` make one ``new`` (in the order in which they are put together), or one ``old`` makes several.
    Axes of every old one are first put in the order ``axes``. ``score`` says how sure it is, 0 to 1; only what is
    ``certain`` is 1.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    confidence: Confidence
    why: str
    op: Op | None = None
    axes: Axes = ()
    score: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether nothing but the name changes."""
        return self.op is None and not self.axes


@dataclass(frozen=True, slots=True)
class Move:
    """Names that one rule turns into others: one into one, one into several, several into one, or into none."""

    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A rule with the moves that it was made for: those that it has to bring about, and no others."""

    rule: Rule
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Keys of the target between which and ``candidates`` nothing decides, and what an answer would look like."""

    new: tuple[str, ...]
    candidates: tuple[str, ...]
    why: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """What leads from names to a target. Every key of either side is in exactly one place.

    ``missing`` are keys of the target that nothing leads to, ``unused`` those of the source that lead nowhere.
    ``rewriting`` is what the links come to; ``written`` and ``rules``, a file's text, are the same as rules that were
    checked against them.
    """

    links: tuple[Link, ...]
    questions: tuple[Question, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rewriting: Rewriting = field(default_factory=lambda: Rewriting(()))
    rules: str = ""
    written: tuple[Written, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every key of the target has its source and nothing has to be asked."""
        return not (self.questions or self.missing)

    @property
    def certain(self) -> bool:
        """Whether it is complete and every pair is proved."""
        return self.complete and all(link.confidence == "certain" for link in self.links)
