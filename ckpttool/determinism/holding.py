"""A branch held against the uninterrupted run: where it departs, which levels that breaks, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from ckpttool.determinism.cases import Peer
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
from ckpttool.determinism.lost_world import FIELD
from ckpttool.determinism.reference import Reference
from ckpttool.determinism.resized import in_common, is_spread, of_parts, processes_in
from ckpttool.determinism.running import Ran
from ckpttool.determinism.trace import Process, Save, Step, component_of
from ckpttool.determinism.verdict import Branch, LevelName, Wishes


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
    reference, steps = _sides(parts, reference)
    departures = [
        replace(odd, rank=rank)
        for rank in reference.ranks
        if (odd := departure(reference.ranks[rank], steps[rank])) is not None
    ]
    departures += _ends(reference, steps, wishes)
    first = earliest(departures)
    loose = (*reference.loose_leaves, *wishes.ignore)
    everything = [p for part in parts for p in part]
    artifact = artifact_departure(saves_of(reference.ran.trace), saves_of(everything), loose)
    lost = [
        (p, _not_restored(reference, [q for part in parts[1:place] for q in part], p))
        for place, part in enumerate(parts) if place for p in part if p.steps
    ]  # fmt: skip
    odd_process = next((p for p, names in lost if names), None)
    names = next((names for _, names in lost if names), ())
    found = replace(found, steps=steps[0], departure=first, boundary=names, artifact=artifact)
    found = replace(found, broken=_broken(reference, steps, found))
    if first is None and set(names) - {FIELD}:
        base = odd_process.base or 0 if odd_process else 0
        first = Departure(base + 1, names, None)
    if first is None and artifact is not None:
        first = artifact
    if first is None:
        return found
    process = odd_process or _process_at(resumed, first)
    rank = process.rank if process.rank in reference.ranks else 0
    own = next((d for d in departures if d.rank == rank), first)  # what that process itself saw
    case = Case(
        reference.ranks[rank], steps[rank], process, replace(own, rank=rank), names, len(kill.cut) > 1,
        start=reference.start(rank), saves=_saves_for(reference, rank),
        peers=tuple(_peers(reference, steps, lost, rank)),
    )  # fmt: skip
    return replace(found, departure=first, causes=diagnose(case))


def _sides(parts: Sequence[Sequence[Process]], reference: Reference) -> tuple[Reference, dict[int, dict[int, Step]]]:
    """The steps of both runs by rank; where another number of processes went on, what all of them have in common."""
    trace, everything = reference.ran.trace, [p for part in parts for p in part]
    if {processes_in(part) for part in parts} <= {0, processes_in(trace)}:
        return reference, {rank: steps_of(everything, rank) for rank in reference.ranks}
    spread = is_spread(everything) or is_spread(trace)
    common = replace(reference, ranks={0: in_common(reference.ranks, spread=spread)})
    return common, {0: of_parts(parts, spread=spread)}


def _not_restored(reference: Reference, before: Sequence[Process], process: Process) -> tuple[str, ...]:
    """What a process did not get back of what the reference saved, or a resume that had departed from it."""
    rank = process.rank if process.rank in reference.ranks else 0
    steps, own = reference.ranks[rank], steps_of(before, rank)
    if departure(steps, own) is not None:
        steps = {n: step for n, step in own.items() if n <= (process.base or 0) + 1}
    return boundary(steps, process, reference.loose, reference.start(rank))


def _saves_for(reference: Reference, rank: int) -> tuple[Save, ...]:
    """The saves whose live state is a rank's: its own; else the first rank's, if all hold the same."""
    own = tuple(save for process in reference.ran.trace if process.rank == rank for save in process.saves)
    if own or not rank:
        return own
    first, mine = reference.ranks[0], reference.ranks[rank]
    numbers = [n for n in (save.number for save in reference.saves) if n in first and n in mine]
    same = all(_of(first[n], part) == _of(mine[n], part) for n in numbers for part in ("params", "optimizer"))
    return reference.saves if same else tuple(replace(save, live={}, traits={}) for save in reference.saves)


def _peers(
    reference: Reference,
    steps: dict[int, dict[int, Step]],
    lost: Sequence[tuple[Process, tuple[str, ...]]],
    rank: int,
) -> Iterator[Peer]:
    """The other ranks, each with what its last process did not get back."""
    for other in reference.ranks:
        if other != rank:
            process, names = next(((p, names) for p, names in reversed(lost) if p.rank == other), (None, ()))
            yield Peer(other, reference.ranks[other], steps[other], process, names)


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
    at_will = not process.ended and process.signals < 2  # a second signal strikes a save that is not published yet
    return [s.number for s in process.saves if s.complete and (s.number < last or at_will)]


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
    if set(found.boundary) - {FIELD}:
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
    if kill.how in ("sigterm", "again"):
        process = next((p for p in ran[0].trace if p.signalled is not None), None)
        if process is not None and process.ended:
            more = max((s.number for s in process.steps), default=0) - (process.signalled or 0)
            notes.append(f"SIGTERM was not heeded: {more} more steps, then {process.ended}")
        elif process is not None:
            saved = any(s.number >= (process.signalled or 0) and s.complete for s in process.saves)
            notes.append(f"on SIGTERM it {'saved and ' if saved else ''}ended by itself")
            if kill.how == "again":
                notes.append("the second one struck its save" if process.signals > 1 else "it did not save after that")
    left = max((r.left for r in ran if not r.was_killed_as_ordered and not r.timed_out), default=0)
    if left:
        notes.append(f"{left} of its processes were left behind, and ended")
    return tuple(notes)
