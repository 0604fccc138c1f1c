"""Runs of a training command that are killed and resumed, held against the uninterrupted one."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from ckpttool.determinism.comparing import (
    Departure,
    artifact_departure,
    boundary,
    departure,
    earliest,
    saves_of,
    steps_of,
    unlike,
)
from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.diagnosis import Case, diagnose
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.running import Command, Launchers, Ran
from ckpttool.determinism.trace import Between, Process, Save, Step, component_of
from ckpttool.determinism.verdict import Branch, LevelName, Wishes

NEW_LEG = "out"


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


@dataclass(frozen=True, slots=True)
class Lab:
    """Where branches are run: the command, what was asked for, the folder, the run that all are compared with."""

    launchers: Launchers
    command: Command
    wishes: Wishes
    work: Path
    reference: Reference

    def branch(self, kill: Kill, name: str = "", final: Orders | None = None) -> Branch:
        """Interrupt as planned, resume, go on to the last step, compare. ``final`` are orders for the last part."""
        folder = self.work / (name or kill.name)
        ran: list[Ran] = []
        for place in range(len(kill.cut) + 1):
            trace = [*self.reference.ran.trace, *(p for r in ran for p in r.trace)]
            is_last = place == len(kill.cut)
            orders = self._final(final) if is_last else self._deadly(kill, place)
            orders = replace(orders, folder=folder / "trace", known=known_of(trace))
            done = [save for save in saves_in(p for r in ran for p in r.trace) if save.complete and save.path]
            last = next((s.path for s in reversed(done) if Path(s.path).exists()), "")
            resumed = place > 0 and (bool(last) or not any("{last}" in word for word in self.command.resume))
            ran.append(self.launchers.run(self.command, folder / NEW_LEG, orders, resumed=resumed, last=last))
            if failure := _failure(ran[-1], self.command.timeout, kill, is_last=is_last, first=place == 0):
                refused = place > 0 and not any(p.steps for p in ran[-1].trace) and not ran[-1].timed_out
                return Branch(kill.cut, tuple(ran), failure=failure, kill=kill, refused=refused, broken=("recovery",))
        return compared(kill, tuple(ran), self.reference, self.wishes)

    def _final(self, given: Orders | None) -> Orders:
        return replace(given or Orders(self.work), kill_at=self.wishes.steps)

    def _deadly(self, kill: Kill, place: int) -> Orders:
        """The orders that make a part of a branch end as planned; at the last step in any case."""
        base = Orders(self.work, last=self.wishes.steps)
        match kill.how:
            case "event":
                return replace(base, kill_in_save=kill.save, event=kill.place)
            case "byte":
                return replace(base, torn=kill.save, torn_at=kill.place)
            case "sigterm":
                return replace(base, kill_at=kill.cut[place], signal=signal.SIGTERM, grace=self.wishes.grace)
            case "rank":
                return replace(base, kill_at=kill.cut[place], only_rank=kill.place)
        return replace(base, kill_at=kill.cut[place])


def _failure(ran: Ran, timeout: float, kill: Kill, *, is_last: bool, first: bool) -> str:
    """What went wrong with a part of a branch, as a sentence; empty where it ended as it should."""
    what = "the command" if first else "the resumed command"
    if ran.timed_out:
        return f"{what} did not end within {timeout:g} s"
    died = ran.was_killed_as_ordered or any(p.signalled is not None for p in ran.trace)
    if ran.status != 0 and not died:
        return f"{what} failed with exit status {ran.status}"
    if not first and not any(p.steps for p in ran.trace) and not died:
        return f"{what} took no step"
    return ""


# --- comparing -----------------------------------------------------------------------------------------------------


def aligned(ran: Ran) -> tuple[Process, ...]:
    """The processes of a run with a common count of steps: who was given the state by another rank has its count."""
    base = max((p.base or 0 for p in ran.trace if p.steps), default=0)
    return tuple(_moved(p, base) if p.steps and p.base is None and base else p for p in ran.trace)


def _moved(process: Process, base: int) -> Process:
    steps = tuple(replace(step, number=step.number + base) for step in process.steps)
    state = None if process.state is None else replace(process.state, number=base)
    return replace(process, base=base, steps=steps, state=state)


def compared(kill: Kill, ran: tuple[Ran, ...], reference: Reference, wishes: Wishes) -> Branch:
    """A branch whose parts all ended as they should, held against the reference: rank by rank, step by step."""
    parts = [aligned(r) for r in ran]
    resumed = [p for part in parts[1:] for p in part if p.steps]
    found = Branch(kill.cut, ran, kill=kill, notes=_notes(ran, kill))
    if not resumed:
        if reference.whole and all(p.steps for p in parts[0]):
            return found
        return replace(found, failure="the resumed command took no step", broken=("recovery",))
    if failure := _lost(parts, reference):
        return replace(found, failure=failure, broken=("recovery",))
    everything = [p for part in parts for p in part]
    steps = {rank: steps_of(everything, rank) for rank in reference.ranks}
    departures = [
        replace(odd, rank=rank)
        for rank in reference.ranks
        if (odd := departure(reference.ranks[rank], steps[rank])) is not None
    ]
    departures += _ends(reference, steps, wishes)
    first = earliest(departures)
    loose = (*reference.loose_leaves, *wishes.ignore)
    artifact = artifact_departure(saves_of(reference.ran.trace), saves_of(everything), loose)
    lost = [(p, boundary(reference.ranks[p.rank], p, reference.loose, reference.start(p.rank))) for p in resumed]
    odd_process = next((p for p, names in lost if names), None)
    names = next((names for _, names in lost if names), ())
    found = replace(found, steps=steps[0], departure=first, boundary=names, artifact=artifact)
    found = replace(found, broken=_broken(reference, steps, found))
    if first is None and names:
        base = odd_process.base or 0 if odd_process else 0
        first = Departure(base + 1, names, None)
    if first is None and artifact is not None:
        first = artifact
    if first is None:
        return found
    process = odd_process or _process_at(resumed, first)
    case = Case(
        reference.ranks[first.rank], steps[first.rank], process, first, names, len(kill.cut) > 1,
        start=reference.start(first.rank), saves=reference.saves,
    )  # fmt: skip
    return replace(found, departure=first, causes=diagnose(case))


def _process_at(resumed: Sequence[Process], found: Departure) -> Process:
    mine = [p for p in resumed if p.rank == found.rank] or list(resumed)
    return next((p for p in reversed(mine) if any(s.number == found.step for s in p.steps)), mine[-1])


def _lost(parts: Sequence[Sequence[Process]], reference: Reference) -> str:
    """Whether saves that were complete were not gone on from: a sentence, or nothing."""
    complete = 0
    for before, after in pairwise(parts):
        complete = max([complete, *(number for p in before if p.rank == 0 for number in _standing(p))])
        taken = [p for p in after if p.steps and p.rank == 0]
        if not complete or not taken:
            continue
        if taken[0].base is None:
            return (
                f"the resumed command loaded nothing that had been saved, and step {complete} had been: "
                "it started from the beginning"
            )
        if taken[0].base < complete:
            return f"the resumed command went on from step {taken[0].base}, and step {complete} had been saved"
    return ""


def _standing(process: Process) -> list[int]:
    """The steps of saves that stood for certain: the process took another step after them, or ended by itself."""
    last = max((step.number for step in process.steps), default=0)
    return [s.number for s in process.saves if s.complete and (s.number < last or not process.ended)]


def _ends(reference: Reference, steps: dict[int, dict[int, Step]], wishes: Wishes) -> list[Departure]:
    """A run that goes on where the reference ended, or ends before it."""
    found = []
    for rank, mine in reference.ranks.items():
        last, theirs = max(mine, default=0), max(steps[rank], default=0)
        if theirs < last or (theirs > last and reference.whole):
            found.append(Departure(min(last, theirs) + 1, ("counters.steps",), None, rank))
    return found


def _broken(reference: Reference, steps: dict[int, dict[int, Step]], found: Branch) -> tuple[LevelName, ...]:
    """The levels that a branch does not keep."""
    odd: set[LevelName] = set()
    if found.boundary:
        odd.add("boundary")
    if found.departure is not None:
        odd.add("trajectory")
    for rank, mine in reference.ranks.items():
        theirs = steps[rank]
        if any(unlike(_of(mine[n], "data"), _of(theirs[n], "data")) for n in mine.keys() & theirs.keys()):
            odd.add("data")
    if found.artifact is not None:
        odd.add("artifact")
    if found.is_about_recovery and odd:
        odd.add("recovery")
    order: tuple[LevelName, ...] = ("boundary", "data", "trajectory", "artifact", "recovery")
    return tuple(name for name in order if name in odd)


def _of(step: Step, component: str) -> dict[str, str]:
    return {name: digest for name, digest in step.fields.items() if component_of(name) == component}


def _notes(ran: tuple[Ran, ...], kill: Kill) -> tuple[str, ...]:
    """What a killed run did that people should know."""
    notes = []
    if kill.how == "sigterm":
        process = next((p for p in ran[0].trace if p.signalled is not None), None)
        if process is not None and process.ended:
            more = max((s.number for s in process.steps), default=0) - (process.signalled or 0)
            notes.append(f"SIGTERM was not heeded: {more} more steps, then {process.ended}")
        elif process is not None:
            saved = any(s.number >= (process.signalled or 0) and s.complete for s in process.saves)
            notes.append(f"on SIGTERM it {'saved and ' if saved else ''}ended by itself")
    left = max((r.left for r in ran if not r.was_killed_as_ordered and not r.timed_out), default=0)
    if left:
        notes.append(f"{left} of its processes were left behind, and ended")
    return tuple(notes)
