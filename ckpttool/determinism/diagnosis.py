"""What was lost, in a sentence, with the evidence and the remedy. Rules in the order of cause and effect. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ckpttool.determinism.comparing import Departure, located
from ckpttool.determinism.trace import Process, Step, component_of


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known of one branch that departed."""

    reference: Mapping[int, Step]
    branch: Mapping[int, Step]
    resumed: Process
    departure: Departure
    boundary: tuple[str, ...]
    double: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """A verdict: a stable name, the component, one sentence, what speaks for it, what would mend it."""

    name: str
    component: str
    message: str
    evidence: str
    remedy: str


Rule = Callable[[Case], Cause | None]
_RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Register a rule; the first that speaks has the word."""
    _RULES.append(function)
    return function


def diagnose(case: Case) -> tuple[Cause, ...]:
    """The causes that explain a departure, the most telling first; always at least one."""
    return tuple(_found(case)) or (_unknown(case),)


def _found(case: Case) -> Iterator[Cause]:
    for judge in _RULES:
        cause = judge(case)
        if cause is not None:
            yield cause


def _lost(case: Case, component: str) -> tuple[str, ...]:
    return tuple(name for name in case.boundary if component_of(name) == component)


def _base(case: Case) -> int:
    return case.resumed.base or 0


def _fields(case: Case, number: int) -> Mapping[str, str]:
    step = case.branch.get(number)
    return {} if step is None else step.fields


@rule
def weights(case: Case) -> Cause | None:
    """The parameters are not those that were saved."""
    if not _lost(case, "params"):
        return None
    message = f"the weights after the resume are not those of step {_base(case)}"
    return Cause(
        "weights-changed",
        "params",
        message,
        _names(case.boundary),
        "load the weights strictly, untied ones tied again, in the type that was trained",
    )


@rule
def optimizer(case: Case) -> Cause | None:
    """The optimizer's state is missing, or is not what was saved."""
    odd = _lost(case, "optimizer")
    if not odd:
        return None
    state = case.resumed.state
    gone = [name for name in odd if state is None or name not in state.fields]
    if gone:
        kinds = ", ".join(name.partition(".")[2] for name in gone)
        message = f"the optimizer starts without its state: {kinds} of step {_base(case)} were not restored"
        return Cause(
            "optimizer-lost",
            "optimizer",
            message,
            _names(odd),
            "save optimizer.state_dict() and load it after the model, before the first step",
        )
    message = f"the optimizer's state is not that of step {_base(case)}: {_names(odd)}"
    return Cause(
        "optimizer-changed",
        "optimizer",
        message,
        _names(odd),
        "compare the checkpoint with `ckpttool diff`; look for another parameter order, a cast, or a second load",
    )


@rule
def schedule(case: Case) -> Cause | None:
    """Learning rate or schedule are not where they were."""
    odd = (*_lost(case, "scheduler"), *_lost(case, "lr"))
    if not odd:
        return None
    message = f"the learning-rate schedule is not where it was after step {_base(case)}"
    return Cause(
        "schedule",
        component_of(odd[0]),
        message,
        _names(odd),
        "build the schedule, then load the optimizer, then the schedule's own state",
    )


@rule
def other_state(case: Case) -> Cause | None:
    """Buffers, scaler, average or counters are not what was saved."""
    for component, remedy in (
        ("buffers", "save the whole state dict, buffers included"),
        ("scaler", "save scaler.state_dict() and load it"),
        ("ema", "save the average's state with its count of updates"),
        ("counters", "save every counter that decisions depend on"),
    ):
        if odd := _lost(case, component):
            message = f"{component} after the resume are not those of step {_base(case)}"
            return Cause(f"{component}-lost", component, message, _names(odd), remedy)
    return None


@rule
def data(case: Case) -> Cause | None:
    """Other batches: where in the uninterrupted run they belong says what was forgotten."""
    if "data" not in case.departure.fields:
        return None
    step = case.departure.step
    seen = located(case.reference, _fields(case, step).get("data", ""))
    remedy = "save the epoch and the position in it, and make the order a function of seed and epoch"
    if seen:
        where = f"step {seen[0]}"
        lag = seen[0] - step
        text = f"step {step} trained the batch of {where} ({lag:+d})"
        if seen[0] == 1:
            return Cause(
                "data-restarted", "data", f"{text}: the data start from the beginning again", where, remedy
            )
        name = "data-shifted" if abs(lag) <= 8 else "epoch-order-repeated"
        return Cause(name, "data", f"{text}: the loader's position is not restored", where, remedy)
    if any(name.startswith("rng.") for name in case.departure.fields):
        message = (
            f"step {step} trained a batch that the uninterrupted run never saw, and generators differ: "
            "order or augmentation are drawn from one that was not restored"
        )
        return Cause(
            "data-order-rng",
            "data",
            message,
            _names(case.departure.fields),
            "give the sampler a generator of its own and save its state at the epoch's start",
        )
    message = f"step {step} trained a batch that the uninterrupted run never saw"
    return Cause("data-changed", "data", message, _names(case.departure.fields), remedy)


@rule
def generators(case: Case) -> Cause | None:
    """Batches agree and generators do not."""
    odd = [name for name in case.departure.fields if name.startswith("rng.")]
    if not odd or "data" in case.departure.fields:
        return None
    kinds = ", ".join(name.partition(".")[2] for name in odd)
    step = case.departure.step
    digest = _fields(case, step).get(odd[0], "")
    seen = located(case.reference, digest, odd[0])
    if seen and seen[0] == 1:
        message = f"the generators of {kinds} stand where they stood at step 1: something seeds again after the restore"
        return Cause("rng-reseeded", "rng", message, kinds, "seed first, restore the generators last")
    message = (
        f"the generators of {kinds} are not where they were after step {_base(case)}: "
        "not saved, not restored, or drawn from before the first step"
    )
    return Cause(
        "rng-lost",
        "rng",
        message,
        kinds,
        "save the states of random, numpy and torch, and restore them as the very last thing before the loop",
    )


@rule
def kernels(case: Case) -> Cause | None:
    """Same state, same batch, same generators; other gradients or losses."""
    found = {component_of(name) for name in case.departure.fields}
    if case.boundary or found & {"data", "rng"}:
        return None
    if "loss" in found or "gradients" in found:
        message = (
            "same weights, same batch, same generators, and the loss or the gradients differ: "
            "state that no one saves, or other kernels (threads, libraries)"
        )
        return Cause(
            "hidden-state",
            "gradients" if "loss" not in found else "loss",
            message,
            "boundary and batch agree",
            "look for plain attributes, non-persistent buffers, train()/eval() mode, the number of threads",
        )
    if "params" in found or "optimizer" in found:
        message = (
            "same gradients, and other weights after the step: "
            "another optimizer implementation, or state that hooks do not see"
        )
        return Cause(
            "update",
            "optimizer",
            message,
            _names(case.departure.fields),
            "keep foreach, fused and capturable as they were; look at the optimizer's groups",
        )
    return None


def _unknown(case: Case) -> Cause:
    names = _names(case.departure.fields)
    return Cause(
        "unexplained",
        case.departure.component,
        f"step {case.departure.step} differs in {names}",
        names,
        "run again with --keep and look at the traces",
    )


def _names(fields: object) -> str:
    found = [str(name) for name in fields] if isinstance(fields, (list, tuple)) else []
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
