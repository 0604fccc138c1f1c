"""What a check ran, drawn: a timeline, agreement by component and step, losses one upon the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckpttool.determinism.comparing import agreement
from ckpttool.determinism.trace import Process, Step
from ckpttool.determinism.verdict import Branch, Verdict
from ckpttool.report import Block, Cell, Curves, HeatMap, Lane, Mark, Timeline

COLUMNS = 60
"""Steps that the grid shows; more are taken together."""

LANES = 24
"""Interrupted runs that the timeline shows: those that depart first."""

CURVES = 3
"""Resumed runs whose losses are drawn over the uninterrupted one's."""

Losses = tuple[tuple[int, float], ...]


def pictures(found: Verdict) -> list[Block]:
    """The blocks, as far as there is something to draw."""
    return [*timeline(found), *grid(found), *curves(found)]


def _shown(found: Verdict) -> list[Branch]:
    """Branches that did not end as they should come first, else in the order of the plan."""
    return sorted(found.branches, key=lambda b: not (b.departure or b.failure))


# --- the timeline ------------------------------------------------------------------------------------------


def timeline(found: Verdict) -> list[Block]:
    """Every process that was run: its steps, its saves, how it ended and where it went on."""
    if not found.reference or not found.branches:
        return []
    last = max(found.reference)
    saves: list[tuple[int, Mark]] = [(save.number, "save") for save in found.saves if 0 < save.number <= last]
    lanes = [Lane("uninterrupted", min(found.reference), last, tuple(dict.fromkeys(saves)))]
    shown = _shown(found)[:LANES]
    lanes += [lane for branch in shown for lane in _lanes(branch)]
    left = len(found.branches) - len(shown)
    title = "what was run" + (f" ({left} more interrupted runs are not drawn)" if left else "")
    return [Timeline(tuple(lanes), max(last, *(lane.last for lane in lanes)), title)]


def _lanes(branch: Branch) -> Iterator[Lane]:
    """A lane for each part of a branch; where one part had several processes of a rank, the last that stepped."""
    for place, ran in enumerate(branch.ran):
        stepped = [p for p in ran.trace if p.rank == 0 and p.steps]
        name = str(branch.kill) if place == 0 else "  resumed" if place == 1 else "  resumed again"
        if not stepped:
            yield Lane(name, 1, 0)
            continue
        yield _lane(name, stepped[-1], branch, place)


def _lane(name: str, process: Process, branch: Branch, place: int) -> Lane:
    first, last = process.steps[0].number, process.steps[-1].number
    marks: list[tuple[int, Mark]] = [
        (save.number, "save") for save in process.saves if save.complete and save.number >= first
    ]
    if place:
        marks.append((first, "resume"))
    if place < len(branch.ran) - 1:
        marks.append((last, "kill"))
    odd = branch.departure
    if place and odd is not None and first <= odd.step <= last:
        marks.append((odd.step, "depart"))
    return Lane(name, first, last, tuple(dict.fromkeys(marks)))


# --- the grid ----------------------------------------------------------------------------------------------


def grid(found: Verdict) -> list[Block]:
    """Components × steps of the first branch that departs, else of the first."""
    compared = [b for b in _shown(found) if b.steps]
    if not compared:
        return []
    title = f"{compared[0].kill}: where it agrees with the uninterrupted run"
    return grid_of(found.reference, compared[0].steps, title)


def grid_of(reference: Mapping[int, Step], steps: Mapping[int, Step], title: str) -> list[Block]:
    """Components × steps of two runs."""
    cells = agreement(reference, steps)
    numbers = sorted({n for row in cells.values() for n in row})
    if not numbers:
        return []
    width = -(-len(numbers) // COLUMNS)
    columns = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    rows = [name for name in cells if cells[name]]
    drawn = tuple(tuple(_cell(cells[name], name, group) for group in columns) for name in rows)
    names = tuple(str(group[0]) for group in columns)
    return [HeatMap(tuple(rows), names, drawn, title, "share of steps that differ", "agrees", "not recorded")]


def _cell(cells: dict[int, bool], name: str, group: Sequence[int]) -> Cell | None:
    known = [cells[n] for n in group if n in cells]
    if not known:
        return None
    share = known.count(False) / len(known)
    steps = f"step {group[0]}" if len(group) == 1 else f"steps {group[0]} to {group[-1]}"
    return Cell(share, "", f"{name}, {steps}: {'differs' if share else 'agrees'}")


# --- losses ------------------------------------------------------------------------------------------------


def curves(found: Verdict) -> list[Block]:
    """The loss of the uninterrupted run, and of the first resumed ones, equal ones once, from where each went on."""
    reference = losses_of(found.reference.values())
    compared = [b for b in _shown(found) if b.steps]
    # Where some depart, those that do not would lie upon the uninterrupted one.
    drawable = [b for b in compared if b.departure is not None] or compared[:1]
    resumed = [(b, losses_of(_resumed(b))) for b in drawable]
    distinct = {losses: f"resumed, {b.kill}" for b, losses in reversed(resumed) if losses}
    drawn = [(name, losses) for losses, name in reversed(distinct.items())][:CURVES]
    if len(reference) < 2 or not drawn:
        return []
    return [Curves((("uninterrupted", reference), *drawn), "loss")]


def _resumed(branch: Branch) -> Iterator[Step]:
    """The steps that count, from the first resume on."""
    first = min((p.steps[0].number for r in branch.ran[1:] for p in r.trace if p.rank == 0 and p.steps), default=0)
    return (step for step in branch.steps.values() if step.number >= first)


def losses_of(steps: Iterable[Step]) -> Losses:
    """The losses by step, as far as they were recorded."""
    found = sorted(steps, key=lambda step: step.number)
    return tuple((step.number, step.loss) for step in found if step.loss is not None)
