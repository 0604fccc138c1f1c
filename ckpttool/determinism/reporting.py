"""The check's answer as a report: a sentence, the evidence, a picture of agreement, and the contract's JSON. Pure."""

from __future__ import annotations

from ckpttool.determinism.check import Branch, Verdict
from ckpttool.determinism.comparing import agreement
from ckpttool.errors import ExitCode, printable
from ckpttool.model import Json
from ckpttool.report import Block, Cell, Facts, HeatMap, Report, Subject, Table, Text

CODES = {
    "exact": ExitCode.OK, "diverged": ExitCode.FINDINGS, "recovery-failed": ExitCode.FINDINGS,
    "not-reproducible": ExitCode.IMPOSSIBLE, "command-failed": ExitCode.IMPOSSIBLE, "no-power": ExitCode.IMPOSSIBLE,
}  # fmt: skip
COLUMNS = 60
"""Steps that the picture shows; more are taken together."""


def report(found: Verdict, command: str) -> Report:
    """The report on one check."""
    good = found.status == "exact"
    blocks: list[Block] = [Text(found.status, "good" if good else "bad"), Text(found.message)]
    if found.causes:
        blocks.append(Facts(_facts(found)))
    if found.branches:
        blocks.append(_table(found.branches))
        blocks += _picture(found)
    if found.not_exercised:
        names = ", ".join(found.not_exercised)
        blocks.append(
            Text(
                f"not exercised: losing {names} would not show in this training, so nothing is proved of it",
                "warning",
            )
        )
    if found.unseeded:
        names = ", ".join(name.partition(".")[2] for name in found.unseeded)
        blocks.append(
            Text(
                f"left out: the generators of {names} are never seeded, and nothing that is recorded uses them",
                "dim",
            )
        )
    if found.lines:
        blocks.append(Text("the command's last lines:", "heading"))
        blocks += [Text(printable(line), "dim") for line in found.lines]
    subject = Subject(command, found.status, (), not good, "" if good else found.message)
    return Report("determinism", _data(found), tuple(blocks), CODES[found.status], (subject,))


def _facts(found: Verdict) -> tuple[tuple[str, str], ...]:
    assert found.departure is not None
    cause = found.causes[0]
    proof = next((b.proof for b in found.branches if b.proof), ())
    seen = found.departure.loss_step
    return (
        ("component", cause.component),
        ("cause", cause.name),
        ("evidence", cause.evidence),
        (
            "proof",
            f"with {', '.join(proof)} transplanted the resumed run is exact"
            if proof
            else "none of the transplants made it exact",
        ),
        ("remedy", cause.remedy),
        ("in the loss", "never, in the steps that were looked at" if seen is None else f"from step {seen}"),
    )


def _table(branches: tuple[Branch, ...]) -> Table:
    rows = tuple((", ".join(map(str, b.cut)), _outcome(b)) for b in branches)
    return Table(("killed after step", "resumed run"), rows)


def _outcome(found: Branch) -> str:
    if found.failure:
        return found.failure
    if found.departure is None:
        return "exact"
    return f"departs at step {found.departure.step} in {', '.join(found.departure.fields[:3])}"


def _picture(found: Verdict) -> list[Block]:
    """Components × steps of the first branch that departs, else of the first."""
    chosen = next((b for b in found.branches if b.departure is not None), found.branches[0])
    grid = agreement(found.reference, chosen.steps)
    numbers = sorted({n for cells in grid.values() for n in cells})
    if not numbers:
        return []
    width = -(-len(numbers) // COLUMNS)
    columns = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    rows = [name for name in grid if grid[name]]
    cells = tuple(tuple(_cell(grid[name], name, group) for group in columns) for name in rows)
    names = tuple(str(group[0]) for group in columns)
    title = f"killed after step {', '.join(map(str, chosen.cut))}: where it agrees with the uninterrupted run"
    return [HeatMap(tuple(rows), names, cells, title, "share of steps that differ", "agrees", "not recorded")]


def _cell(cells: dict[int, bool], name: str, group: list[int]) -> Cell | None:
    known = [cells[n] for n in group if n in cells]
    if not known:
        return None
    share = known.count(False) / len(known)
    steps = f"step {group[0]}" if len(group) == 1 else f"steps {group[0]} to {group[-1]}"
    return Cell(share, "", f"{name}, {steps}: {'differs' if share else 'agrees'}")


def _data(found: Verdict) -> dict[str, Json]:
    departure: Json = None
    if found.departure is not None:
        cause = found.causes[0] if found.causes else None
        first = found.departure.fields[0] if found.departure.fields else ""
        departure = {
            "step": found.departure.step,
            "component": cause.component if cause else found.departure.component,
            "key": first,
            "cause": cause.name if cause else None,
            "message": cause.message if cause else found.message,
            "first_visible_in_loss": found.departure.loss_step,
            "fields": [*found.departure.fields],
        }
    cuts: list[Json] = [
        {
            "steps": [*b.cut],
            "exact": not b.failure and b.departure is None,
            "failure": b.failure or None,
            "departs": None if b.departure is None else b.departure.step,
            "boundary": [*b.boundary],
            "proof": [*b.proof],
        }
        for b in found.branches
    ]
    return {
        "status": found.status, "message": found.message, "cuts": cuts, "divergence": departure,
        "not_exercised": [*found.not_exercised], "unseeded": [*found.unseeded],
        "saves": [s.number for s in found.saves], "lines": [*found.lines],
    }  # fmt: skip
