"""What a check is asked, and what it answers. Values alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.cuts import Cut, Kill
from ckpttool.determinism.diagnosis import Cause
from ckpttool.determinism.leaves import Element
from ckpttool.determinism.running import Ran
from ckpttool.determinism.trace import Save, Step

Status: TypeAlias = Literal["exact", "diverged", "not-reproducible", "command-failed", "recovery-failed", "no-power"]
LevelName: TypeAlias = Literal["boundary", "data", "trajectory", "artifact", "recovery"]
LEVELS: tuple[LevelName, ...] = ("boundary", "data", "trajectory", "artifact", "recovery")
"""From the narrowest to the widest; who asks for one asks for those before it."""

LevelState: TypeAlias = Literal["exact", "broken", "not exercised", "not asked"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for. ``kills`` are deaths inside saves and by SIGTERM; ``level`` is the widest that has to hold.
    ``power_cuts`` are kills after saves that cost, too, what was not flushed to the disk.

    ``without_saves`` and ``without_evaluation`` are words that turn these off, or to another rhythm. With ``tidy`` what
    a branch has written is removed once it has been compared. ``at`` are cuts that were named, in the place of others.
    """

    steps: int
    cuts: int = 6
    jobs: int = 1
    seed: int = 0
    power: bool = True
    prove: bool = True
    kills: int = 0
    shrink: bool = True
    level: LevelName = "recovery"
    grace: float = 5.0  # seconds after SIGTERM
    without_saves: tuple[str, ...] = ()
    without_evaluation: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    tidy: bool = False
    at: tuple[Cut, ...] = ()
    power_cuts: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """One interrupted run: where it was cut, how its parts ended, where it departs and why.

    ``refused``: the resumed command ended with an error before its first step. ``notes`` are worth telling and break
    nothing. ``artifact`` is the first checkpoint that differs from that of the uninterrupted run.
    """

    cut: Cut
    ran: tuple[Ran, ...] = ()
    steps: dict[int, Step] = field(default_factory=dict, hash=False)
    departure: Departure | None = None
    causes: tuple[Cause, ...] = ()
    boundary: tuple[str, ...] = ()
    failure: str = ""
    proof: tuple[str, ...] = ()
    kill: Kill = field(default_factory=lambda: Kill((), ""))
    refused: bool = False
    notes: tuple[str, ...] = ()
    artifact: Departure | None = None
    broken: tuple[LevelName, ...] = ()

    @property
    def is_about_recovery(self) -> bool:
        """Whether the kill was of a kind that only the level of recovery speaks of."""
        return self.kill.how not in ("step", "rank")


@dataclass(frozen=True, slots=True)
class Level:
    """A promise, whether it is kept, and what that rests on."""

    name: LevelName
    state: LevelState
    basis: str


@dataclass(frozen=True, slots=True)
class Detail:
    """The difference at its smallest: where, the tensors that differ there, the first element, and what it equals.

    ``equals`` says whose saved content a tensor has instead of its own.
    """

    where: str
    tensors: tuple[str, ...]
    element: Element | None = None
    equals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found. ``message`` says it in a sentence; ``lines`` are the last ones of a command that failed."""

    status: Status
    message: str
    reference: dict[int, Step] = field(default_factory=dict, hash=False)
    saves: tuple[Save, ...] = ()
    branches: tuple[Branch, ...] = ()
    departure: Departure | None = None
    causes: tuple[Cause, ...] = ()
    not_exercised: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    unseeded: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    detail: Detail | None = None
    smallest: str = ""
    ranks: int = 1
    notes: tuple[str, ...] = ()
