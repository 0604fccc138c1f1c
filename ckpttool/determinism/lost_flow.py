"""Rules on what comes after a load that brought everything back: data, generators, modules, kernels, saves. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, Rule, listed
from ckpttool.determinism.comparing import located
from ckpttool.determinism.cuts import epochs, samples_of
from ckpttool.determinism.trace import Step, component_of

POSITION = "save the epoch and the position in it, and make the order a function of seed and epoch"
NEAR = 8
"""Batches by which a position is off when batches were counted wrong, rather than an epoch."""


# --- data ----------------------------------------------------------------------------------------------------------


def data(case: Case) -> Cause | None:
    """Other batches: where in the uninterrupted run they belong says what was forgotten."""
    odd = case.differs("data")
    if not odd:
        return None
    step = case.departure.step
    if odd == ("data",) and "data.ids" in case.fields(step):
        message = f"step {step} trained the right samples with other contents: augmentation or data differ"
        remedy = "draw augmentation from a generator of each sample's own, seeded by seed, epoch and index"
        return Cause("data-contents", "data", message, listed(odd), remedy)
    field = "data.ids" if "data.ids" in odd else "data"
    seen = located(case.reference, case.fields(step).get(field, ""), field)
    if seen:
        return _elsewhere(case, step, seen)
    return _mixture(case, step) or _unseen(case, step)


def _elsewhere(case: Case, step: int, seen: list[int]) -> Cause:
    """The batch of another step: the beginning, the beginning of an epoch, an epoch further, a few batches off."""
    starts = epochs(case.reference)
    began = max((s for s in starts if s <= step), default=1)
    place = next((s for s in seen if s == began), next((s for s in seen if s in starts and s > step), None))
    place = place or min(seen, key=lambda s: abs(s - step))
    lag = place - step
    text = f"step {step} trained the batch of step {place} ({lag:+d})"
    evidence = f"step {place}"
    if place == began and lag:
        again = "the data start" if began == 1 else "the epoch starts"
        return Cause("data-restarted", "data", f"{text}: {again} from the beginning again", evidence, POSITION)
    if place in starts and lag > 1:
        return Cause("epoch-cut-short", "data", f"{text}: the rest of the epoch is left out", evidence, POSITION)
    if _whole_epochs(starts, began, step, place):
        message = f"{text}: an earlier epoch's order comes again, its number is not restored"
        return Cause("epoch-order-repeated", "data", message, evidence, POSITION)
    name = "data-shifted" if abs(lag) <= NEAR else "epoch-order-repeated"
    return Cause(name, "data", f"{text}: the loader's position is not restored", evidence, POSITION)


def _whole_epochs(starts: list[int], began: int, step: int, place: int) -> bool:
    """Whether a batch stands at the same place of an earlier epoch."""
    return place < began and any(place - start == step - began for start in (1, *starts) if start < began)


def _mixture(case: Case, step: int) -> Cause | None:
    """Samples that are known, in batches that are not."""
    mine, theirs = (samples_of(run[step]) if step in run else () for run in (case.branch, case.reference))
    if not mine or not theirs:
        return None
    if len(mine) != len(theirs):
        message = f"step {step} trained {len(mine)} samples, and the uninterrupted run {len(theirs)}"
        remedy = "keep the size of batches, or count samples, not batches, in the position that is saved"
        return Cause("batch-size-changed", "data", message, f"{len(mine)} and {len(theirs)} samples", remedy)
    if sorted(mine) == sorted(theirs):
        message = f"step {step} trained the right samples in another order"
        return Cause("data-order-changed", "data", message, "the same set", POSITION)
    everything = {sample for other in case.reference.values() for sample in samples_of(other)}
    if not set(mine) <= everything or case.differs("rng"):
        return None
    before = _trained(case, step)
    again = sum(sample in before for sample in mine)
    message = (
        f"step {step} trained another mixture of samples: {again} of {len(mine)} had been trained in this epoch already"
        if again
        else f"step {step} trained samples of several later batches: some were left out"
    )
    return Cause("data-order-changed", "data", message, f"{again} of {len(mine)} samples", POSITION)


def _trained(case: Case, step: int) -> set[str]:
    """The samples that the uninterrupted run had trained in this epoch before a step."""
    began = max((s for s in epochs(case.reference) if s <= step), default=1)
    return {s for n in range(began, step) for s in samples_of(case.reference.get(n, Step(n, {})))}


def _unseen(case: Case, step: int) -> Cause:
    if case.differs("rng"):
        message = (
            f"step {step} trained a batch that the uninterrupted run never saw, and generators differ: "
            "order or augmentation are drawn from one that was not restored"
        )
        remedy = "give the sampler a generator of its own and save its state at the epoch's start"
        return Cause("data-order-rng", "data", message, listed(case.departure.fields), remedy)
    message = f"step {step} trained a batch that the uninterrupted run never saw"
    return Cause("data-changed", "data", message, listed(case.departure.fields), POSITION)


# --- generators ------------------------------------------------------------------------------------------------------


def generators(case: Case) -> Cause | None:
    """Batches agree and generators do not."""
    odd = case.differs("rng")
    if not odd or case.differs("data"):
        return None
    kinds = ", ".join(name.partition(".")[2] for name in odd)
    step, state = case.departure.step, case.resumed.state
    now = "" if state is None else state.fields.get("rng.torch", "")
    seen = located(case.reference, case.fields(step).get(odd[0], ""), odd[0])
    seeded = "rng.torch" in odd and now in case.resumed.seeds and now not in case.resumed.restored
    if seeded or (seen and seen[0] == 1):
        where = "right after a seed was set" if seeded else "where they stood at step 1"
        message = f"the generators of {kinds} stand {where}: something seeds again after the restore, or instead of it"
        return Cause("rng-reseeded", "rng", message, kinds, "seed first, restore the generators last")
    if step > case.base + 1:
        message = f"the generators of {kinds} agree until step {step - 1}: something between two steps draws otherwise"
        return Cause(
            "rng-drifts", "rng", message, kinds, "look at what is done before that step: a save, an evaluation"
        )
    saved = set(case.saved.leaves.values()) if case.saved is not None else set()
    right = [digest for digest in case.resumed.restored if digest in saved]
    if "rng.torch" in odd and right and now not in right:
        message = (
            f"the generator of torch was restored as it was saved after step {case.base}, "
            "and drawn from before the first step"
        )
        remedy = "restore the generators as the very last thing before the loop, after loaders and iterators are made"
        return Cause("rng-drawn", "rng", message, kinds, remedy)
    message = (
        f"the generators of {kinds} are not where they were after step {case.base}: "
        "not saved, not restored, or drawn from before the first step"
    )
    remedy = "save the states of random, numpy and torch, and restore them as the very last thing before the loop"
    return Cause("rng-lost", "rng", message, kinds, remedy)


# --- what no state holds --------------------------------------------------------------------------------------------


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
    message = f"modules have other settings than before: {listed(told)}"
    remedy = "make the model with the same settings; a state dict does not hold them"
    return Cause("module-settings", "modules", message, listed(told), remedy)


def environment(case: Case) -> Cause | None:
    """Bits depend on threads, libraries and versions too."""
    odd = case.lost("environment")
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
    data, generators, modules, stale, accumulated, environment, schedule_function, kernels, counters, artifact,
)  # fmt: skip
