"""Rules on what no state holds, and what comes of it: modules, environment, kernels, counters, saves. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, Rule, listed
from ckpttool.determinism.lost_data import data
from ckpttool.determinism.lost_generators import generators
from ckpttool.determinism.lost_world import FIELD, world
from ckpttool.determinism.trace import component_of

COMPILED = ", compiled"


def modules(case: Case) -> Cause | None:
    """Modules have other settings, or another mode, than in the process that trained before."""
    odd = case.lost("modules")
    if not odd or case.start is None:
        return None
    names = [name.partition(".")[2] for name in odd]
    was, now = case.start.modules, case.resumed.modules
    told = [f"{name or 'the model'} was {was.get(name)}, is {now.get(name)}" for name in names]
    mode = [n for n in names if ("in evaluation mode" in was.get(n, "")) != ("in evaluation mode" in now.get(n, ""))]
    if mode:
        message = f"{len(mode)} modules are in another mode than before: {listed([n or 'the model' for n in mode])}"
        return Cause("training-mode", "modules", message, listed(told), "call model.train() after the resume")
    if all(was.get(name, "").replace(COMPILED, "") == now.get(name, "").replace(COMPILED, "") for name in names):
        before, after = (any(COMPILED in side.get(n, "") for n in names) for side in (was, now))
        message = (
            f"the model is {'compiled' if after else 'not compiled'} now, and was {'' if before else 'not '}before: "
            "compiled kernels round otherwise, and dropout draws otherwise"
        )
        return Cause("compiled", "modules", message, listed(told), "compile in every process of the run, or in none")
    message = f"modules have other settings than before: {listed(told)}"
    remedy = "make the model with the same settings; a state dict does not hold them"
    return Cause("module-settings", "modules", message, listed(told), remedy)


def environment(case: Case) -> Cause | None:
    """Bits depend on threads, libraries and versions too."""
    odd = tuple(name for name in case.lost("environment") if name != FIELD)
    if not odd or case.start is None:
        return None
    was, now = case.start.environment, case.resumed.environment
    names = [name.partition(".")[2] for name in odd]
    told = [f"{name} was {was.get(name)}, is {now.get(name)}" for name in names]
    message = f"the environment is another one: {listed(told)}; sums come out in another order sooner or later"
    return Cause("environment", "environment", message, listed(told), "set it in the script, the same way every time")


def stale(case: Case) -> Cause | None:
    """Parameters that got gradients before get none."""
    step = case.departure.step
    mine, theirs = case.branch.get(step), case.reference.get(step)
    if mine is None or theirs is None or mine.graded is None or theirs.graded is None or mine.graded >= theirs.graded:
        return None
    message = f"gradients reach {mine.graded} of {theirs.graded} parameters: it is another model that computes"
    remedy = "make the optimizer, and whatever wraps the model, from the model that is trained after the load"
    return Cause("stale-model", "gradients", message, listed(case.departure.fields), remedy)


def accumulated(case: Case) -> Cause | None:
    """The first step after a resume lacks gradients of batches that came before its end."""
    step = case.departure.step
    batches = case.reference[step].micro if step in case.reference else None
    found = {component_of(name) for name in case.departure.fields}
    odd = found & {"data", "rng", "loss", "lr"} or "gradients" not in found
    if case.boundary or odd or not batches or batches < 2 or step != case.base + 1:
        return None
    message = f"the losses of step {step} agree, and the gradients of its {batches} batches do not: some were lost"
    remedy = "save between two steps of the optimizer, or save the gradients that have been accumulated"
    return Cause("gradients-lost", "gradients", message, listed(case.departure.fields), remedy)


def schedule_function(case: Case) -> Cause | None:
    """Rates that differ though the schedule's state came back."""
    found = {component_of(name) for name in case.departure.fields}
    if case.boundary or "lr" not in found or found & {"data", "rng", "loss", "gradients"}:
        return None
    message = f"the learning rate differs from step {case.departure.step} on, and the schedule's state was restored"
    remedy = "make the schedule with the same length and functions; its state does not hold them"
    return Cause("schedule-function", "lr", message, listed(case.departure.fields), remedy)


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
        component = "gradients" if "loss" not in found else "loss"
        remedy = "look for plain attributes, non-persistent buffers, train()/eval() mode, the number of threads"
        return Cause("hidden-state", component, message, "boundary and batch agree", remedy)
    if "params" in found or "optimizer" in found:
        message = (
            "same gradients, and other weights after the step: "
            "another optimizer implementation, or state that hooks do not see"
        )
        remedy = "keep foreach, fused and capturable as they were; look at the optimizer's groups"
        return Cause("update", "optimizer", message, listed(case.departure.fields), remedy)
    return None


def counters(case: Case) -> Cause | None:
    """The run ends at another step, or counts otherwise."""
    odd = case.differs("counters")
    if not odd or set(odd) != set(case.departure.fields):
        return None
    if odd == ("counters.steps",):
        mine, theirs = max(case.branch, default=0), max(case.reference, default=0)
        message = f"the resumed run ends after step {mine}, and the uninterrupted one after step {theirs}"
    else:
        message = f"what the script counts differs at step {case.departure.step}"
    return Cause("counters-lost", "counters", message, listed(odd), "save every counter that decisions depend on")


def artifact(case: Case) -> Cause | None:
    """Training is exact, and what it saves is not."""
    odd = [name.partition(".")[2] for name in case.differs("artifact")]
    if not odd:
        return None
    message = f"training is exact, and the checkpoint of step {case.departure.step} holds another {listed(odd)}"
    remedy = "save and restore it; where it is right to differ, leave it out by --ignore"
    return Cause("artifact", "artifact", message, listed(odd), remedy)


FLOW_RULES: tuple[Rule, ...] = (
    world, data, generators, modules, stale, accumulated, environment, schedule_function, kernels, counters, artifact,
)  # fmt: skip
