"""The uninterrupted run that all others are held against, and its saves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ckpttool.determinism.running import Ran
from ckpttool.determinism.trace import Between, Process, Save, Step


@dataclass(frozen=True, slots=True)
class Reference:
    """The uninterrupted run: its steps by rank, its saves, and what is left out of every comparison.

    ``loose`` are fields that nobody seeds, ``loose_leaves`` values in checkpoints that differ between two
    uninterrupted runs. ``whole``: it came to its end by itself, before the last step that was asked for.
    """

    ran: Ran
    loose: frozenset[str] = frozenset()
    loose_leaves: frozenset[str] = frozenset()
    ranks: dict[int, dict[int, Step]] = field(default_factory=dict, hash=False)

    @property
    def steps(self) -> dict[int, Step]:
        return self.ranks.get(0, {})

    @property
    def whole(self) -> bool:
        return not self.ran.was_killed_as_ordered

    @property
    def saves(self) -> tuple[Save, ...]:
        return saves_in(self.ran.trace)

    @property
    def between(self) -> tuple[Between, ...]:
        return tuple(b for process in self.ran.trace if process.rank == 0 for b in process.between)

    @property
    def last(self) -> int:
        return max(self.steps, default=0)

    def start(self, rank: int) -> Process | None:
        """The process that took a rank's first step."""
        return next((p for p in self.ran.trace if p.rank == rank and p.steps), None)


def saves_in(trace: Iterable[Process]) -> tuple[Save, ...]:
    """The saves of the first rank, in order."""
    return tuple(save for process in trace if process.rank == 0 for save in process.saves)


def known_of(trace: Iterable[Process]) -> dict[str, int]:
    """Digests of saves, and of parts of them, with their steps: those that only one step's saves have."""
    places: dict[str, set[int]] = {}
    for process in trace:
        for save in process.saves:
            for digest in (save.digest, *save.parts.values()):
                places.setdefault(digest, set()).add(save.number)
    return {digest: min(steps) for digest, steps in places.items() if len(steps) == 1}
