"""Two recorded traces compared, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ckpttool.determinism.comparing import Departure, departure, earliest, steps_of, unseeded
from ckpttool.determinism.pictures import grid_of, losses_of
from ckpttool.determinism.reading import TraceError, read_trace
from ckpttool.determinism.resized import in_common, is_spread, processes_in
from ckpttool.determinism.trace import Process, Step, component_of
from ckpttool.errors import ExitCode, UsageError, printable
from ckpttool.model import Finding, Json
from ckpttool.report import Block, Curves, Facts, Report, Subject, Table, Text

NAMES = 8
"""Fields and tensors that are told by name."""


@dataclass(frozen=True, slots=True)
class Side:
    """One trace: what it is called, its processes, its ranks' steps by number."""

    name: str
    processes: tuple[Process, ...]
    ranks: dict[int, dict[int, Step]] = field(hash=False)


def compare_traces(first: Path, second: Path) -> Report:
    """Where two traces depart; exit code 0 where every step that both have agrees in every field.

    Steps that only one of the two has are told and are no difference. Raises ``UsageError`` for what is no trace, for a
    version that is not known, and for traces without a step or a rank in common.
    """
    one, two = _comparable(_side(first), _side(second))
    ranks = sorted(one.ranks.keys() & two.ranks.keys())
    shared = {rank: sorted(one.ranks[rank].keys() & two.ranks[rank].keys()) for rank in ranks}
    count = len({number for numbers in shared.values() for number in numbers})
    if not count:
        raise UsageError(f"{one.name} and {two.name} have no step in common")
    found = _departure(one, two, ranks)
    data: dict[str, Json] = {
        "status": "exact" if found is None else "diverged", "steps": count, "ranks": len(ranks),
        "alone": [_alone(one, shared), _alone(two, shared)], "environment": [[*row] for row in _environment(one, two)],
        "divergence": None if found is None else _divergence(one, two, found),
    }  # fmt: skip
    blocks = tuple(_blocks(one, two, found, count, ranks, shared))
    code = ExitCode.OK if found is None else ExitCode.FINDINGS
    return Report("determinism", data, blocks, code, (_subject(one, two, found),))


def _side(folder: Path) -> Side:
    try:
        processes = read_trace(folder)
    except TraceError as error:
        raise UsageError(printable(str(error))) from error
    except OSError as error:
        raise UsageError(f"{printable(str(folder))} – {(error.strerror or str(error)).lower()}") from error
    ranks = {process.rank: steps_of(processes, process.rank) for process in processes if process.steps}
    return Side(printable(str(folder)), processes, ranks)


def _comparable(one: Side, two: Side) -> tuple[Side, Side]:
    """Both as they are; of different numbers of processes what those of each have in common."""
    if processes_in(one.processes) == processes_in(two.processes):
        return one, two
    spread = is_spread(one.processes) or is_spread(two.processes)
    return _together(one, spread), _together(two, spread)


def _together(side: Side, spread: bool) -> Side:
    count = processes_in(side.processes)
    name = f"{side.name} ({count} process{'es' if count > 1 else ''})"
    return replace(side, name=name, ranks={0: in_common(side.ranks, spread=spread)})


def _departure(one: Side, two: Side, ranks: list[int]) -> Departure | None:
    """The first difference of any rank; of a generator or a part that one trace does not record nothing is said."""
    found = []
    for rank in ranks:
        both = _compared(one, two, rank)
        odd = departure(_only(one.ranks[rank], both), _only(two.ranks[rank], both))
        if odd is not None:
            found.append(Departure(odd.step, odd.fields, odd.loss_step, rank))
    return earliest(found)


def _shared(one: Side, two: Side, rank: int) -> set[str]:
    return _fields(one.ranks[rank]) & _fields(two.ranks[rank])


def _compared(one: Side, two: Side, rank: int) -> set[str]:
    """The fields that both record, without generators that nobody seeded."""
    mine, theirs = one.ranks[rank], two.ranks[rank]
    both = _shared(one, two, rank)
    return both - unseeded(_only(mine, both), _only(theirs, both))


def _fields(steps: dict[int, Step]) -> set[str]:
    return {name for step in steps.values() for name in step.fields}


def _only(steps: dict[int, Step], names: set[str]) -> dict[int, Step]:
    kept = {n: {name: d for name, d in step.fields.items() if name in names} for n, step in steps.items()}
    return {n: Step(n, kept[n], step.loss, step.tensors) for n, step in steps.items()}


def _tensors(one: Side, two: Side, found: Departure) -> list[str]:
    """The tensors that differ at that step, where both traces were recorded with ``--full``."""
    mine, theirs = (side.ranks[found.rank][found.step].tensors for side in (one, two))
    return [name for name in mine if name in theirs and mine[name] != theirs[name]]


def _environment(one: Side, two: Side) -> tuple[tuple[str, str, str], ...]:
    here, there = one.processes[0].environment, two.processes[0].environment
    return tuple((k, here.get(k, ""), there.get(k, "")) for k in {**here, **there} if here.get(k) != there.get(k))


def _alone(side: Side, shared: dict[int, list[int]]) -> int:
    """Steps that the other trace does not have."""
    return len({n for rank, steps in side.ranks.items() for n in steps if n not in set(shared.get(rank, ()))})


# --- for people --------------------------------------------------------------------------------------------


def _blocks(
    one: Side, two: Side, found: Departure | None, count: int, ranks: list[int], shared: dict[int, list[int]]
) -> Iterator[Block]:  # fmt: skip
    of = f" of {len(ranks)} ranks" if len(ranks) > 1 else ""
    if found is None:
        yield Text(f"exact: {count} steps{of} agree in every field", "good")
    else:
        names = ", ".join(found.fields[:NAMES])
        who = f" of rank {found.rank}" if found.rank else ""
        yield Text("diverged", "bad")
        yield Text(f"the traces depart at step {found.step}{who}, first in {found.component}: {names}")
        yield Facts(tuple(_facts(one, two, found)))
    for side in (one, two):
        if left := _alone(side, shared):
            yield Text(f"{left} step{' is' if left == 1 else 's are'} in {side.name} alone", "dim")
    if left_out := sorted(_unshared(one, two, ranks)):
        yield Text(f"recorded in one of the two alone, and not compared: {', '.join(left_out[:NAMES])}", "dim")
    if loose := sorted({n for rank in ranks for n in _shared(one, two, rank) - _compared(one, two, rank)}):
        names = ", ".join(name.partition(".")[2] for name in loose)
        yield Text(
            f"left out: the generators of {names} are never seeded, and nothing that is recorded uses them", "dim"
        )
    if odd := _environment(one, two):
        yield Table(("environment", one.name, two.name), odd)
    rank = found.rank if found is not None else ranks[0]
    yield from _pictures(one, two, rank)


def _facts(one: Side, two: Side, found: Departure) -> Iterator[tuple[str, str]]:
    yield "component", found.component
    if odd := _tensors(one, two, found):
        more = f" and {len(odd) - NAMES} more" if len(odd) > NAMES else ""
        yield "tensors", ", ".join(odd[:NAMES]) + more
    yield ("in the loss", "never, in these steps" if found.loss_step is None else f"from step {found.loss_step}")


def _unshared(one: Side, two: Side, ranks: list[int]) -> set[str]:
    return {name for rank in ranks for name in _fields(one.ranks[rank]) ^ _fields(two.ranks[rank])}


def _pictures(one: Side, two: Side, rank: int) -> Iterator[Block]:
    mine, theirs = one.ranks[rank], two.ranks[rank]
    both = _compared(one, two, rank)
    yield from grid_of(_only(mine, both), _only(theirs, both), "where they agree")
    curves = tuple((side.name, losses_of(side.ranks[rank].values())) for side in (one, two))
    if all(points for _, points in curves):
        yield Curves(curves, "loss")


# --- for machines ------------------------------------------------------------------------------------------


def _divergence(one: Side, two: Side, found: Departure) -> Json:
    return {
        "step": found.step, "rank": found.rank, "component": found.component, "fields": [*found.fields],
        "tensors": [*_tensors(one, two, found)], "first_visible_in_loss": found.loss_step,
    }  # fmt: skip


def _subject(one: Side, two: Side, found: Departure | None) -> Subject:
    name = f"{one.name} against {two.name}"
    if found is None:
        return Subject(two.name, "exact", (), name=name)
    where = f"step {found.step}, {component_of(found.fields[0])}"
    message = f"departs from {one.name} in {', '.join(found.fields[:NAMES])}"
    finding = Finding("determinism", "diverged", "error", where, message)
    return Subject(two.name, "diverged", (finding,), failed=True, name=name)
