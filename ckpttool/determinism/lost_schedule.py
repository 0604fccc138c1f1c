"""Rules on a schedule of learning rates that does not stand where it stood: where it does is looked up. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, listed
from ckpttool.determinism.comparing import located

ORDER = "build the schedule, then load the optimizer, then the schedule's own state"


def schedule(case: Case) -> Cause | None:
    """Learning rate or schedule are not where they were."""
    moved, rate = case.lost("scheduler"), case.lost("lr")
    if not moved and not rate:
        return None
    if not moved and case.start is not None and case.resumed.state and "scheduler" in case.resumed.state.fields:
        message = f"the learning rate is not that of step {case.base}, while the schedule is: it was set afterwards"
        remedy = "build the schedule before the optimizer is loaded: building it sets the rate back"
        return Cause("lr-reset", "lr", message, listed(rate), remedy)
    component, evidence = "scheduler" if moved else "lr", listed((*moved, *rate))
    if not moved and (cause := _rate(case, evidence)) is not None:
        return cause
    told = listed(case.moved_values("scheduler") or case.moved_values("lr"))
    ended = f" ({told})" if told else ""
    place = _place(case, "scheduler" if moved else "lr")
    if place is None:
        message = f"the learning-rate schedule is not where it was after step {case.base}{ended}"
        return Cause("schedule", component, message, evidence, ORDER)
    lag = place - case.base - 1
    if place == 1:
        message = f"the learning-rate schedule starts again: it stands where it stood at step 1{ended}"
        return Cause("schedule-restarted", component, message, evidence, "save the schedule's state and load it")
    message = f"the learning-rate schedule is shifted by {lag:+d} step{'s' if abs(lag) > 1 else ''}"
    remedy = "save after the schedule's step, and take none on a resume: building one and loading it is enough"
    return Cause("schedule-shifted", component, f"{message}: it stands as at step {place}{ended}", evidence, remedy)


def _rate(case: Case, evidence: str) -> Cause | None:
    """Other rates, where there is no schedule that torch knows, and rates stand as they never did."""
    told = case.moved_values("lr")
    if not told or _place(case, "lr") is not None:
        return None
    groups = listed([f"of group {text}" if text[0].isdigit() else text for text in told])
    message = f"the learning rate is not that of step {case.base}: that {groups}"
    remedy = "set the rates after the optimizer's state was loaded the way they were set before, or leave them alone"
    return Cause("lr-changed", "lr", message, evidence, remedy)


def _place(case: Case, field: str) -> int | None:
    """The step of the uninterrupted run at which the schedule stood so; None for one at which it never did."""
    state = case.resumed.state
    seen = located(case.reference, "" if state is None else state.fields.get(field, ""), field)
    if field == "lr" and len(seen) > 1:  # a rate that stays the same says nothing of where it stands
        return None
    return seen[0] if seen else None
