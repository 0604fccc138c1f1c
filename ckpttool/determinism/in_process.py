"""Interrupted, then resumed, compared with uninterrupted: for a training in this process, as tests want it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ckpttool.determinism.comparing import Departure, departure, differing, unseeded, without
from ckpttool.determinism.cuts import Cut
from ckpttool.determinism.diagnosis import Case, Cause, diagnose
from ckpttool.determinism.leaves import Element, digest, first_difference
from ckpttool.determinism.trace import Process, Step, component_of
from ckpttool.determinism.trainee import Factory, Fields, Life, recorded
from ckpttool.errors import UsageError

Cuts: TypeAlias = int | Sequence[int | Cut]
"""How many interruptions to choose, or after which steps: a number is one, a tuple is a resume of a resume."""

Level: TypeAlias = Literal["boundary", "trajectory"]
"""``boundary``: what is loaded has to be what was saved, and every step equal. ``trajectory``: the steps alone."""

Outcome: TypeAlias = Literal["exact", "diverged", "not-reproducible", "saving-changes-training", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which it is not exact: the cut, where it departs, why, and the first element that is different.

    ``at_load`` are the fields that are not what they were when they were saved, before any step was taken.
    """

    outcome: Outcome
    cut: Cut
    departure: Departure | None = None
    causes: tuple[Cause, ...] = ()
    at_load: tuple[str, ...] = ()
    element: Element | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came out: the reference's steps, the cuts that were tried, and what was found, the earliest first."""

    steps: int
    cuts: tuple[Cut, ...]
    reference: dict[int, Step] = field(default_factory=dict, hash=False)
    findings: tuple[Finding, ...] = ()
    unseeded: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        return self.findings[0].outcome if self.findings else "exact"


class Reference:
    """The uninterrupted run, and what is left out of every comparison with it."""

    def __init__(self, factory: Factory, steps: int) -> None:
        self.factory, self.lives = factory, itertools.count()
        self.steps = _run(self.life(), steps)
        again = _run(self.life(), steps)
        self.loose = unseeded(self.steps, again)
        self.steps = without(self.steps, self.loose)
        self.odd = departure(self.steps, again)

    def life(self) -> Life:
        """A new process."""
        return Life(self.factory, next(self.lives))


def prove(
    factory: Factory, folder: Path, *, steps: int, cuts: Cuts = 6, seed: int = 0, level: Level = "boundary"
) -> Proof:
    """Run, save, load and compare; checkpoints go to ``folder``.

    Costs three runs of ``steps`` steps, of which one saves after each, and for each cut the steps after it. Errors of
    the trainee while it trains are the caller's; those of a load are a finding. Raises ``UsageError`` for cuts that do
    not lie within the steps.
    """
    chosen = choose_cuts(steps, cuts, seed)
    reference = Reference(factory, steps)
    loose = tuple(sorted(reference.loose))
    if reference.odd is not None:
        return Proof(steps, chosen, reference.steps, (_not_reproducible(reference),), loose)
    saved, opaque = _saving(reference, folder, steps, {cut[0] for cut in chosen})
    if opaque is not None:
        return Proof(steps, chosen, reference.steps, (opaque,), loose)
    tried = (_branch(reference, folder, steps, cut, saved[cut[0]], level) for cut in chosen)
    found = sorted((f for f in tried if f is not None), key=lambda f: (len(f.cut), f.cut))
    return Proof(steps, chosen, reference.steps, tuple(found), loose)


def choose_cuts(steps: int, cuts: Cuts, seed: int) -> tuple[Cut, ...]:
    """The cuts of a run: those that are given; else the first step, the last but one, double, random ones."""
    if steps < 2:
        raise UsageError(f"{steps} steps cannot be interrupted: there have to be 2 or more")
    if not isinstance(cuts, int):
        given = tuple(dict.fromkeys((cut,) if isinstance(cut, int) else tuple(cut) for cut in cuts))
        for cut in given:
            if not cut or not all(1 <= step < steps for step in cut) or list(cut) != sorted(cut):
                text = f"{', '.join(map(str, cut)) or 'nothing'} cannot be a cut of {steps} steps"
                raise UsageError(f"{text}: each is a step from 1 to {steps - 1}, in order")
        return given
    middle = max(1, steps // 2)
    wanted: list[Cut] = [(middle,), (1,), (1, middle), (steps - 1,), (middle, middle)]
    rng = random.Random(seed)
    while len(set(wanted)) < min(cuts, steps - 1):
        wanted.append(tuple(sorted(rng.randrange(1, steps) for _ in range(rng.choice((1, 1, 2))))))
    return tuple(dict.fromkeys(cut for cut in wanted if list(cut) == sorted(cut)))[:cuts]


def _run(life: Life, steps: int) -> dict[int, Step]:
    return {number: recorded(number, life.step()) for number in range(life.done + 1, steps + 1)}


def _saving(
    reference: Reference, folder: Path, steps: int, kept: set[int]
) -> tuple[dict[int, tuple[Path, Fields]], Finding | None]:
    """A run that saves after every step: its checkpoints with the state that was saved, and whether saving is seen."""
    life, saved, taken = reference.life(), {}, {}
    for number in range(1, steps + 1):
        taken[number] = recorded(number, life.step())
        path = folder / f"step-{number}.pt"
        before = life.state()
        life.save(path)
        odd = _differing(before, life.state())
        if odd or (found := departure(reference.steps, taken)) is not None:
            found = Departure(number, odd, None) if odd else found
            element = _first(before, life.state(), odd)
            return {}, Finding("saving-changes-training", (number,), found, element=element)
        if number in kept:
            saved[number] = (path, before)
    return saved, None


def _not_reproducible(reference: Reference) -> Finding:
    odd = reference.odd
    assert odd is not None
    one, two = (_fields_at(reference.life(), odd.step) for _ in range(2))
    return Finding("not-reproducible", (), odd, element=_first(one, two, odd.fields))


def _branch(
    reference: Reference, folder: Path, steps: int, cut: Cut, saved: tuple[Path, Fields], level: Level
) -> Finding | None:
    """Load what was saved, go on, save and load again as often as the cut says, and go on to the end."""
    (path, was), taken = saved, {n: s for n, s in reference.steps.items() if n <= cut[0]}
    for place, number in enumerate(cut):
        life = reference.life()
        try:
            life.load(path, number)
        except Exception as error:
            return Finding("failed", cut, error=f"load after step {number}: {type(error).__name__}: {error}")
        now = life.state()
        taken |= _run(life, cut[place + 1] if place + 1 < len(cut) else steps)
        odd = departure(reference.steps, taken) or _healed(reference, number, was, now, level)
        if odd is not None:
            return _diverged(reference, cut, taken, odd, Boundary(number, path, was, now))
        if place + 1 < len(cut):
            path, was = folder / f"cut-{'-'.join(map(str, cut))}-{place}.pt", life.state()
            life.save(path)
    return None


def not_restored(reference: Reference, was: Fields, now: Fields) -> tuple[str, ...]:
    """The fields that a load did not restore; generators are judged by the steps, for they may be seeded anew."""
    return tuple(n for n in _differing(was, now) if n not in reference.loose and component_of(n) != "rng")


def _healed(reference: Reference, step: int, was: Fields, now: Fields, level: Level) -> Departure | None:
    """A state that the load did not restore and that no later step shows."""
    lost = not_restored(reference, was, now)
    return Departure(step, lost, None) if lost and level == "boundary" else None


@dataclass(frozen=True, slots=True)
class Boundary:
    """A load: the step that it goes on from, the file, the state when that was saved and right after it was loaded."""

    step: int
    path: Path
    was: Fields
    now: Fields


def _diverged(reference: Reference, cut: Cut, taken: dict[int, Step], odd: Departure, load: Boundary) -> Finding:
    """Why, and in which element: at the load where that lost the part that is to blame, else at the step."""
    lost = tuple(n for n in _differing(load.was, load.now) if n not in reference.loose)
    state = Step(load.step, {name: digest(leaves) for name, leaves in load.now.items()})
    steps = tuple(step for number, step in sorted(taken.items()) if number > load.step)
    # Which generators matter shows at the step: one that is seeded anew in each need not be kept.
    stored = tuple(name for name in lost if component_of(name) != "rng")
    process = Process(rank=0, base=load.step, state=state, steps=steps)
    causes = diagnose(Case(reference.steps, taken, process, odd, stored, len(cut) > 1))
    blamed = [name for name in lost if component_of(name) == causes[0].component]
    element = _first(load.was, load.now, blamed)
    if element is None:
        life = reference.life()
        life.load(load.path, load.step)
        element = _first(_fields_at(reference.life(), odd.step), _fields_at(life, odd.step), odd.fields)
    return Finding("diverged", cut, odd, causes, lost, element)


def _fields_at(life: Life, step: int) -> Fields:
    fields: Fields = {}
    while life.done < step:
        fields = life.step()
    return fields


def _differing(one: Fields, two: Fields) -> tuple[str, ...]:
    """The fields of two states that differ, in the order of cause and effect."""
    steps = [Step(0, {name: digest(leaves) for name, leaves in fields.items()}) for fields in (one, two)]
    return (*differing(*steps), *(name for name in two if name not in one))


def _first(one: Fields, two: Fields, names: Sequence[str]) -> Element | None:
    """The first element in which the first of the named fields differs, with the field in its name."""
    for element in _elements(one, two, names):
        return element
    return None


def _elements(one: Fields, two: Fields, names: Sequence[str]) -> Iterator[Element]:
    for name in names:
        found = first_difference(one.get(name, {}), two.get(name, {}))
        if found is not None:
            yield Element(
                f"{name} {found.name}".strip(), found.index, found.one, found.two, found.ulps, found.odd, found.total
            )
