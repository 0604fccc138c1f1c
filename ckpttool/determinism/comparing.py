"""Where two runs depart: the first step, and the fields that differ there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpttool.determinism.trace import COMPONENTS, Process, Save, Step, component_of

ORDER = (
    "data",
    "rng",
    "loss",
    "gradients",
    "lr",
    "optimizer",
    "params",
    "buffers",
    "scheduler",
    "scaler",
    "ema",
    "counters",
    "artifact",
)
"""The order of cause and effect within a step: of several that differ the first is told."""

PASSING = ("data", "rng", "loss", "gradients")
"""What belongs to a step alone."""

STEPPED = ("params", "buffers", "optimizer")
BETWEEN = ("lr", "scheduler", "scaler", "ema", "counters")
BOUNDARY = (*STEPPED, *BETWEEN, "modules", "environment")
"""What a load restores, in the order in which it is told: what a step changes, and what moves between two steps."""


@dataclass(frozen=True, slots=True)
class Departure:
    """The first difference between two runs: the step, the fields that differ, and the first step whose loss does.

    ``rank`` is the process that saw it first, where there are several.
    """

    step: int
    fields: tuple[str, ...]
    loss_step: int | None
    rank: int = 0

    @property
    def component(self) -> str:
        """The first component in the order of cause and effect."""
        found = {component_of(name) for name in self.fields}
        return next((name for name in ORDER if name in found), next(iter(sorted(found)), ""))


def earliest(found: Iterable[Departure]) -> Departure | None:
    """Of what several ranks saw the first: by step, then by cause and effect, for what one did reaches all others."""
    return min(found, key=lambda d: (d.step, _place(ORDER, d.component), d.rank), default=None)


def steps_of(processes: Iterable[Process], rank: int = 0) -> dict[int, Step]:
    """The steps of a run by number; of a step that was done twice the later counts."""
    return {step.number: step for process in processes if process.rank == rank for step in process.steps}


def unseeded(one: Mapping[int, Step], two: Mapping[int, Step]) -> frozenset[str]:
    """Generators that nobody seeded and nobody uses.

    They differ from the first step on, while nothing else does; or where something else does, they never move.
    """
    shared = sorted(one.keys() & two.keys())
    if not shared:
        return frozenset()
    odd = differing(one[shared[0]], two[shared[0]])
    if all(component_of(name) == "rng" for name in odd):
        return frozenset(odd)
    return frozenset(n for n in odd if component_of(n) == "rng" and _rests(n, one) and _rests(n, two))


def _rests(name: str, steps: Mapping[int, Step]) -> bool:
    """Whether a field is the same at all of several steps."""
    return len(steps) > 1 and len({step.fields.get(name) for step in steps.values()}) == 1


def without(steps: Mapping[int, Step], names: frozenset[str]) -> dict[int, Step]:
    """The same steps with some fields left out."""
    if not names:
        return dict(steps)
    return {
        number: replace(step, fields={k: v for k, v in step.fields.items() if k not in names})
        for number, step in steps.items()
    }


def departure(reference: Mapping[int, Step], other: Mapping[int, Step]) -> Departure | None:
    """The first step at which two runs differ, over the steps that both have; None where they agree."""
    shared = sorted(reference.keys() & other.keys())
    for number in shared:
        fields = differing(reference[number], other[number])
        if fields:
            return Departure(number, fields, _first_loss(reference, other, shared, number))
    return None


def differing(one: Step, two: Step) -> tuple[str, ...]:
    """The fields that differ, in the order of cause and effect; one that the second lacks differs too."""
    # What the reference leaves out (a generator that nobody seeded) is not compared.
    names = [n for n in one.fields if one.fields[n] != two.fields.get(n)]
    return tuple(sorted(names, key=lambda n: (_place(ORDER, n), n)))


def _place(order: Sequence[str], name: str) -> int:
    component = component_of(name)
    return order.index(component) if component in order else len(order)


def _first_loss(reference: Mapping[int, Step], other: Mapping[int, Step], shared: list[int], start: int) -> int | None:
    losses = ((n, reference[n].fields.get("loss"), other[n].fields.get("loss")) for n in shared if n >= start)
    return next((n for n, mine, theirs in losses if mine != theirs), None)


def boundary(
    reference: Mapping[int, Step], process: Process, loose: Collection[str] = (), start: Process | None = None
) -> tuple[str, ...]:
    """The fields that a resumed process has otherwise, before its first step, than the run had when it saved.

    ``start`` is the process of the reference, whose modules and environment are those that are meant.
    """
    if process.state is None or process.base is None or process.base not in reference:
        return ()
    found = process.state.fields
    after, following = reference[process.base].fields, reference.get(process.base + 1)
    # Rates, schedules, scalers and averages move between a step and the next one's forward pass.
    saved = {n: d for n, d in after.items() if component_of(n) in STEPPED}
    moved = {} if following is None else following.fields
    saved |= {n: d for n, d in moved.items() if component_of(n) not in (*STEPPED, *PASSING)}
    odd = [n for n in saved if found.get(n) != saved[n] and n not in loose]
    if start is not None:
        odd += [f"environment.{n}" for n, value in start.environment.items() if process.environment.get(n) != value]
        odd += [f"modules.{n}" for n, value in start.modules.items() if process.modules.get(n, value) != value]
    return tuple(sorted(odd, key=lambda n: (_place(BOUNDARY, n), n)))


def unlike(one: Mapping[str, str], two: Mapping[str, str], loose: Collection[str] = ()) -> tuple[str, ...]:
    """The names under which two lists of digests differ, or that only one of them has."""
    return tuple(n for n in dict.fromkeys([*one, *two]) if one.get(n) != two.get(n) and n not in loose)


def saves_of(processes: Iterable[Process], rank: int = 0) -> dict[tuple[int, int], Save]:
    """The saves of a run by step and place among those of the step; of what was saved twice the later counts.

    What a resumed process saves before its first step is left out: some hand what they loaded to other ranks so.
    """
    found: dict[tuple[int, int], Save] = {}
    for process in processes:
        seen: dict[int, int] = {}
        mine = process.saves if process.rank == rank else ()
        for save in mine if process.base is None else [s for s in mine if s.number > (process.base or 0)]:
            place = seen[save.number] = seen.get(save.number, 0) + 1
            found[save.number, place] = save
    return found


def artifact_departure(
    reference: Mapping[tuple[int, int], Save], other: Mapping[tuple[int, int], Save], loose: Collection[str] = ()
) -> Departure | None:
    """The first checkpoint that both runs saved and that holds something else, with the names of what does."""
    for place in sorted(reference.keys() & other.keys()):
        odd = unlike(reference[place].leaves, other[place].leaves, loose)
        if odd:
            return Departure(place[0], tuple(f"artifact.{name}" for name in odd), None)
    return None


def located(reference: Mapping[int, Step], digest: str, field: str = "data") -> list[int]:
    """The steps of the reference whose field has this digest: where a resumed run thinks it is."""
    return [number for number, step in sorted(reference.items()) if step.fields.get(field) == digest]


def agreement(reference: Mapping[int, Step], other: Mapping[int, Step]) -> dict[str, dict[int, bool]]:
    """By component and step whether two runs agree: what the picture is drawn from."""
    found: dict[str, dict[int, bool]] = {name: {} for name in COMPONENTS}
    for number in sorted(reference.keys() & other.keys()):
        odd = {component_of(name) for name in differing(reference[number], other[number])}
        present = {component_of(name) for name in reference[number].fields}
        for name in present & found.keys():
            found[name][number] = name not in odd
    return {name: cells for name, cells in found.items() if cells}
