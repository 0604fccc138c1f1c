"""Two recorded traces compared, wherever they come from."""

from __future__ import annotations

from pathlib import Path

from ckpttool.determinism.comparing import departure, steps_of
from ckpttool.determinism.trace import TraceError, read_trace
from ckpttool.errors import ExitCode, UsageError, printable
from ckpttool.model import Json
from ckpttool.report import Report, Table, Text


def compare_traces(first: Path, second: Path) -> Report:
    """Where two traces depart; exit code 0 where every step that both have agrees. Raises ``UsageError``."""
    try:
        one, two = read_trace(first), read_trace(second)
    except TraceError as error:
        raise UsageError(printable(str(error))) from error
    mine, theirs = steps_of(one), steps_of(two)
    shared = mine.keys() & theirs.keys()
    if not shared:
        raise UsageError(f"{printable(str(first))} and {printable(str(second))} have no step in common")
    here, there = one[0].environment, two[0].environment
    odd = tuple(
        (k, here.get(k, ""), there.get(k, "")) for k in {**here, **there} if here.get(k) != there.get(k)
    )
    environment = (Table(("environment", str(first.name), str(second.name)), odd),) if odd else ()
    found = departure(mine, theirs)
    if found is None:
        text = f"{len(shared)} steps agree in every field"
        return Report(
            "determinism",
            {"status": "exact", "steps": len(shared), "divergence": None},
            (Text(text, "good"), *environment),
        )
    text = (
        f"the traces depart at step {found.step}, first in {found.component}: {', '.join(found.fields[:6])}"
    )
    divergence: dict[str, Json] = {
        "step": found.step,
        "component": found.component,
        "fields": [*found.fields],
        "first_visible_in_loss": found.loss_step,
    }
    data: dict[str, Json] = {"status": "diverged", "steps": len(shared), "divergence": divergence}
    return Report("determinism", data, (Text(text, "bad"), *environment), ExitCode.FINDINGS)
