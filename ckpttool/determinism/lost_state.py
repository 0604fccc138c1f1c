"""Rules on what a load brought back, but for the optimizer: held against what was saved, before any step. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, Rule, listed, many
from ckpttool.determinism.lost_optimizer import optimizer
from ckpttool.determinism.lost_schedule import schedule
from ckpttool.determinism.trace import component_of
from ckpttool.determinism.traits import narrowed

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
    if (cause := _rounded(case)) is not None:
        return cause
    if odd and len(odd) < total:
        message = f"{len(odd)} of {total} weights after the resume are not those of step {case.base}: {listed(odd)}"
        return Cause("weights-partial", "params", message, listed(odd), STRICT)
    message = f"the weights after the resume are not those of step {case.base}"
    return Cause("weights-changed", "params", message, listed(odd or case.boundary), STRICT)


def _rounded(case: Case) -> Cause | None:
    """Every weight that differs would survive a narrower type: it came from there."""
    now = case.odd_traits("params")
    kind = narrowed(now.values())
    if not kind:
        return None
    total = case.count_of("params") or len(now)
    message = (
        f"{len(now)} of {many(total, 'weight')} hold nothing that {kind} could not, and are not those of step "
        f"{case.base}: they were built anew from rounded ones"
    )
    remedy = f"save the weights that are trained, in their own type, and load those: not a copy in {kind}"
    return Cause("weights-rounded", "params", message, listed([*now]), remedy)


OTHERS = (
    ("buffers", "buffers are not those", "save the whole state dict, buffers included"),
    ("scaler", "loss scale is not that", "save scaler.state_dict() and load it"),
    ("ema", "average of the weights is not that", "save the average's state with its count of updates"),
    ("counters", "counters are not those", "save every counter that decisions depend on"),
)


def other_state(case: Case) -> Cause | None:
    """Buffers, scaler, average or counters are not what was saved."""
    for component, what, remedy in OTHERS:
        if odd := case.lost(component):
            values = case.odd_tensors(component)
            if component == "ema" and (cause := _average_anew(case, values)) is not None:
                return cause
            told = case.moved_values(component) or tuple(name.partition(".")[2] for name in values)
            message = f"after the resume the {what} of step {case.base}" + (f": {listed(told)}" if told else "")
            message += _growth(case) if component == "scaler" else ""
            return Cause(f"{component}-lost", component, message, listed(values or odd), remedy)
    return None


def _growth(case: Case) -> str:
    """When a loss scale grows again."""
    values = {} if case.resumed.state is None else case.resumed.state.values
    interval, tracker = (values.get(f"scaler.0.{name}", "") for name in ("growth_interval", "_growth_tracker"))
    if not interval.isdecimal() or not tracker.isdecimal():
        return ""
    return f"; next growth in {many(int(interval) - int(tracker), 'step')}"


def _average_anew(case: Case, odd: tuple[str, ...]) -> Cause | None:
    """The average holds the weights themselves: it starts again from them."""
    state = case.resumed.state
    if not odd or state is None:
        return None
    own = {digest for name, digest in state.tensors.items() if component_of(name) in ("params", "buffers")}
    if not all(state.tensors.get(name) in own for name in odd):
        return None
    message = (
        f"the average of the weights starts again from the weights: {many(len(odd), 'tensor')} of it equal them. "
        "Training is what it was, and what is evaluated and exported is not"
    )
    return Cause("ema-restarted", "ema", message, listed(odd), "save the average's state and load it")


def named_state(case: Case) -> Cause | None:
    """A part that the script named itself is not what was saved."""
    known = {"params", "buffers", "optimizer", "lr", "scheduler", "scaler", "ema", "counters", "modules", "environment"}
    odd = [name for name in case.boundary if component_of(name) not in known]
    if not odd:
        return None
    message = f"{listed(odd)} after the resume {'is' if len(odd) == 1 else 'are'} not as at step {case.base}"
    return Cause("state-lost", component_of(odd[0]), message, listed(odd), "save it and load it")


STATE_RULES: tuple[Rule, ...] = (weights, optimizer, schedule, other_state, named_state)
