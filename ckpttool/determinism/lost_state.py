"""Rules on what a load brought back: held against what was saved, before any step was taken. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, Rule, listed
from ckpttool.determinism.trace import component_of

STRICT = "load the weights strictly, untied ones tied again, in the type that was trained"


def weights(case: Case) -> Cause | None:
    """The parameters are not those that were saved."""
    if not case.lost("params"):
        return None
    odd, total = case.odd_tensors("params"), case.count_of("params")
    saved = {} if case.saved is None else case.saved.live
    new = [name for name in odd if name not in saved]
    if new and len(new) == len(odd) and (twin := case.origin(new[0])) is not None:
        message = f"{new[0]} and {twin[1]} were one tensor when they were saved, and are two after the resume"
        return Cause("untied", "params", message, listed(odd), "tie the weights again after loading")
    if odd and (twin := case.origin(odd[0])) is not None:
        step = f" of step {twin[0]}" if twin[0] != case.base else ""
        message = f"the weights after the resume are others: {odd[0]} is the saved {twin[1]}{step}"
        return Cause("weights-exchanged", "params", message, listed(odd), STRICT)
    if odd and len(odd) < total:
        message = f"{len(odd)} of {total} weights after the resume are not those of step {case.base}: {listed(odd)}"
        return Cause("weights-partial", "params", message, listed(odd), STRICT)
    message = f"the weights after the resume are not those of step {case.base}"
    return Cause("weights-changed", "params", message, listed(odd or case.boundary), STRICT)


def optimizer(case: Case) -> Cause | None:
    """The optimizer's state is missing, or is not what was saved."""
    odd = case.lost("optimizer")
    if not odd:
        return None
    if odd == ("optimizer.settings",):
        return _settings(case)
    state = case.resumed.state
    gone = [name for name in odd if state is None or name not in state.fields]
    if gone:
        kinds = ", ".join(name.partition(".")[2] for name in gone)
        message = f"the optimizer starts without its state: {kinds} of step {case.base} were not restored"
        remedy = "save optimizer.state_dict() and load it after the model, before the first step"
        return Cause("optimizer-lost", "optimizer", message, listed(odd), remedy)
    values = [name for name in case.odd_tensors("optimizer") if not name.startswith("optimizer.settings")]
    twins = [(name, twin) for name in values if (twin := case.origin(name)) is not None]
    if twins and twins[0][1][0] == case.base and component_of(twins[0][1][1]) == "optimizer":
        name, (_, other) = twins[0]
        message = f"parameters have each other's state: {name} equals the saved {other}"
        remedy = "keep the order of parameters, or save the state by name: torch matches by position alone"
        return Cause("optimizer-permuted", "optimizer", message, listed(values), remedy)
    if odd == ("optimizer.step",):
        message = f"the optimizer's own count of steps is not that of step {case.base}: its correction of bias is wrong"
        return Cause(
            "optimizer-steps", "optimizer", message, listed(odd), "restore the whole state dict, `step` included"
        )
    message = f"the optimizer's state is not that of step {case.base}: {listed(odd)}"
    remedy = "compare the checkpoint with `ckpttool diff`; look for a cast, a lower precision, or a second load"
    return Cause("optimizer-changed", "optimizer", message, listed(values or odd), remedy)


def _settings(case: Case) -> Cause:
    odd = [n for n in case.odd_tensors("optimizer") if n.startswith("optimizer.settings.")]
    saved = {} if case.saved is None else case.saved.live
    now = {} if case.resumed.state is None else case.resumed.state.tensors
    told = [f"{n.rpartition('.')[2]} was {saved.get(n)}, is {now.get(n)}" for n in odd]
    message = f"the optimizer's settings are others after the resume: {listed(told) or 'a group differs'}"
    remedy = "make the optimizer with the same options; foreach, fused and capturable are options too"
    return Cause("optimizer-settings", "optimizer", message, listed(odd or case.boundary), remedy)


def schedule(case: Case) -> Cause | None:
    """Learning rate or schedule are not where they were."""
    moved, rate = case.lost("scheduler"), case.lost("lr")
    if not moved and not rate:
        return None
    if not moved and case.start is not None and case.resumed.state and "scheduler" in case.resumed.state.fields:
        message = f"the learning rate is not that of step {case.base}, while the schedule is: it was set afterwards"
        remedy = "build the schedule before the optimizer is loaded: building it sets the rate back"
        return Cause("lr-reset", "lr", message, listed(rate), remedy)
    message = f"the learning-rate schedule is not where it was after step {case.base}"
    remedy = "build the schedule, then load the optimizer, then the schedule's own state"
    return Cause("schedule", "scheduler" if moved else "lr", message, listed((*moved, *rate)), remedy)


OTHERS = (
    ("buffers", "save the whole state dict, buffers included"),
    ("scaler", "save scaler.state_dict() and load it"),
    ("ema", "save the average's state with its count of updates"),
    ("counters", "save every counter that decisions depend on"),
)


def other_state(case: Case) -> Cause | None:
    """Buffers, scaler, average or counters are not what was saved."""
    for component, remedy in OTHERS:
        if odd := case.lost(component):
            values = case.odd_tensors(component)
            message = f"{component} after the resume are not those of step {case.base}"
            message += f": {listed(values)}" if values else ""
            return Cause(f"{component}-lost", component, message, listed(values or odd), remedy)
    return None


def named_state(case: Case) -> Cause | None:
    """A part that the script named itself is not what was saved."""
    known = {"params", "buffers", "optimizer", "lr", "scheduler", "scaler", "ema", "counters", "modules", "environment"}
    odd = [name for name in case.boundary if component_of(name) not in known]
    if not odd:
        return None
    message = f"{listed(odd)} after the resume {'is' if len(odd) == 1 else 'are'} not as at step {case.base}"
    return Cause("state-lost", component_of(odd[0]), message, listed(odd), "save it and load it")


STATE_RULES: tuple[Rule, ...] = (weights, optimizer, schedule, other_state, named_state)
