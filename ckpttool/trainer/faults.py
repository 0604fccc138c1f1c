"""Every way to break a resume that a processor can show, on purpose: ``--inject NAME``. Each is a few lines.

The table in the documentation is made from the decorators: the causes that a fault stands for, the first part that
differs from an unbroken run, the first loss that does (``+0`` is that of the first step after it), when it strikes.
"""

from __future__ import annotations

import copy
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from ckpttool import CheckpointStore, UsageError
from ckpttool.trainer.data import Chosen, Plan, Position
from ckpttool.trainer.distributed import first, rank, world
from ckpttool.trainer.optim import load_named_state, make_optimizer, make_scaler, make_schedule, named_state
from ckpttool.trainer.state import TrainState, generators, restore_generators, seed_everything
from ckpttool.trainer.tasks import TaskParts


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: what it stands for, when it strikes, what differs first, when the loss does, and what it does."""

    name: str
    causes: str
    first: str
    loss: str
    when: str
    act: Callable[..., Any]


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, causes: str, first: str, loss: str, when: str = "resume"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function; the first line of its docstring says what it is like."""

    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS[name] = Fault(name, causes, first, loss, when, act)
        return act

    return register


class Faults:
    """The faults that were asked for, ready to strike. Raises ``UsageError`` for a name that is none."""

    def __init__(self, names: str) -> None:
        self.names = [name.strip() for name in names.split(",") if name.strip()]
        for name in self.names:
            if name not in FAULTS:
                near = get_close_matches(name, FAULTS, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FAULTS)}"
                raise UsageError(f"inject – no fault is called '{name}'; {hint}")
        self.ignore_checkpoints = "checkpoints-ignored" in self.names
        self.resumed = False

    def after_resume(self, state: TrainState, parts: TaskParts) -> None:
        """Strike at what was just restored, or at the start of a run that was not."""
        self.resumed = state.counters.resumes > 0
        self.strike("start", state)
        if self.resumed:
            self.strike("resume", state)
            self.strike("data", parts)
        if state.counters.resumes > 1:
            self.strike("second resume", state)

    def order(self, plan: Plan, at: Position) -> Iterator[Chosen]:
        """What the data stream yields from a position on."""
        for found in self._found("order"):
            if self.resumed:
                return iter(found.act(plan, at))
        for found in self._found("every order"):
            return iter(found.act(plan, at))
        return plan.batches_from(at)

    def micro_step(self, state: TrainState) -> None:
        """Once, after the first micro-batch that follows a resume."""
        if self.resumed:
            self.strike("micro-step", state)
            self.resumed = False

    def after_save(self, store: CheckpointStore) -> None:
        """Strike at what was just written."""
        self.strike("saved", store)

    def strike(self, when: str, target: object) -> None:
        """All that strike at this time do."""
        for found in self._found(when):
            found.act(target)

    def _found(self, when: str) -> list[Fault]:
        return [FAULTS[name] for name in self.names if FAULTS[name].when == when]


def need(there: object, what: str) -> None:
    """Raise ``UsageError`` where a run has nothing that a fault could break: it would look harmless."""
    if not there:
        raise UsageError(f"inject – this run has no {what}, so the fault would break nothing")


# --- data: each gives what the stream yields after a resume -------------------------------------------------------


@fault("data-restarted", "D1", "batch ids", "+0", "order")
def _data_restarted(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The position is lost: the epoch starts again."""
    return plan.batches_from(Position(at.epoch, 0))


@fault("epoch-lost", "D2", "batch ids", "+0", "order")
def _epoch_lost(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The epoch is lost: the order of epoch 0 comes again, and then those that follow it."""
    return plan.batches_from(Position(0, at.batch))


@fault("order-changed", "D3", "batch ids", "+0", "order")
def _order_changed(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Another shuffle for the rest of the epoch: some samples come twice, some never."""
    yield from replace(plan, seed=plan.seed + 1).rest_of(at)
    yield from plan.batches_from(Position(at.epoch + 1, 0))


@fault("epoch-not-set", "D4", "batch ids", "+0", "order")
def _epoch_not_set(plan: Plan, at: Position) -> Iterator[Chosen]:
    """A loader that is built anew does not know its epoch until the next one; in epoch 0 nobody notices."""
    yield from plan.rest_of(Position(0, at.batch))
    yield from plan.batches_from(Position(at.epoch + 1, 0))


@fault("data-ahead", "D5", "batch ids", "+0", "order")
def _data_ahead(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Batches that were fetched ahead count as used."""
    return islice(plan.batches_from(at), 2, None)


@fault("data-behind", "D5", "batch ids", "+0", "order")
def _data_behind(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The last batch comes once more: the position was saved before it was advanced."""
    return plan.batches_from(
        Position(at.epoch, at.batch - 1) if at.batch else Position(max(0, at.epoch - 1), plan.batches - 1)
    )


@fault("epoch-cut-short", "D6", "batch ids", "+0", "order")
def _epoch_cut_short(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The rest of the epoch is left out."""
    return plan.batches_from(Position(at.epoch + 1, 0))


@fault("augmentation-reseeded", "D8", "batch contents", "+0", "order")
def _augmentation_reseeded(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The same samples, augmented by generators that start anew, as those of loader processes do."""
    return ([(epoch + 1_000_000, index) for epoch, index in chosen] for chosen in plan.batches_from(at))


@fault("stale-workers", "D9", "batch contents", "later", "order")
def _stale_workers(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Loader processes that live on augment every epoch as the one in which they began."""
    return ([(at.epoch, index) for _, index in chosen] for chosen in plan.batches_from(at))


@fault("batch-size-changed", "D12", "batch ids", "+0", "order")
def _batch_size_changed(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The position counts batches, and these have another size now."""
    return replace(plan, batch_size=max(1, plan.batch_size // 2)).batches_from(at)


@fault("shuffle-buffer-lost", "D13", "batch ids", "+0", "order")
def _shuffle_buffer_lost(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The samples that stood in a stream's shuffle buffer are gone, those after them come at once."""
    following = plan.batches_from(at)
    buffer = [sample for chosen in islice(following, 4) for sample in chosen]
    kept = buffer[1::2]
    for chosen in following:
        kept += chosen
        yield [kept.pop(0) for _ in range(len(chosen))]


@fault("unsorted-files", "D14", "batch ids", "+0", "every order")
def _unsorted_files(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Samples are listed in another order by every process: two uninterrupted runs differ already."""
    return replace(plan, seed=int.from_bytes(os.urandom(4), "little")).batches_from(at)


@fault("data-changed", "D15", "batch contents", "+0", "data")
def _data_changed(parts: TaskParts) -> None:
    """Samples on the disk are other ones than before, and nobody compares."""
    parts.train.inputs.copy_(parts.train.inputs.flip(0))


# --- optimizer, schedule, scaler --------------------------------------------------------------------------------


@fault("optimizer-lost", "O1 O2", "optimizer", "+1")
def _optimizer_lost(state: TrainState) -> None:
    """The optimizer's state is not loaded, or was never asked for: a fresh optimizer has no keys to load into."""
    state.optimizer.state.clear()


@fault("template-empty", "T2 O2", "optimizer", "+1")
def _template_empty(state: TrainState) -> None:
    """A distributed checkpoint fills a template, and a fresh optimizer's has no moments: they are never read."""
    import torch.distributed.checkpoint as dcp  # here: seconds

    saved = named_state(state.optimizer, state.model)
    fresh = named_state(make_optimizer(state.model, state.config), state.model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        dcp.save({"optimizer": saved}, checkpoint_id=folder, no_dist=True)
        dcp.load({"optimizer": fresh}, checkpoint_id=folder, no_dist=True)
    state.optimizer.state.clear()
    load_named_state(state.optimizer, state.model, fresh)


@fault("moments-permuted", "O3", "optimizer", "+1")
def _moments_permuted(state: TrainState) -> None:
    """Two parameters of one shape get each other's moments: the order of parameters changed."""
    first, second = _twins(state)
    states = state.optimizer.state
    states[first], states[second] = states[second], states[first]


@fault("moments-cast", "O4", "optimizer", "+1")
def _moments_cast(state: TrainState) -> None:
    """Moments take the type of bfloat16 parameters on loading, and keep 8 bits of 24."""
    for moment in _moments(state):
        moment.copy_(moment.bfloat16())


@fault("moments-half", "O5", "optimizer", "+1")
def _moments_half(state: TrainState) -> None:
    """Moments were saved in half precision: small squares became zero."""
    for moment in _moments(state):
        moment.copy_(moment.half())


@fault("weights-rounded", "O6", "model", "+0")
def _weights_rounded(state: TrainState) -> None:
    """Master weights are built anew from bfloat16 ones."""
    with torch.no_grad():
        for p in state.model.parameters():
            p.copy_(p.bfloat16())


@fault("optimizer-steps-lost", "O7", "optimizer", "+1")
def _steps_lost(state: TrainState) -> None:
    """The optimizer's own count of steps starts again: its correction of bias is wrong."""
    found = [own for own in state.optimizer.state.values() if "step" in own]
    need(found, "optimizer that counts steps (adamw does)")
    for own in found:
        own["step"] = torch.zeros_like(own["step"])


@fault("fused", "O8", "optimizer", "depends")
def _fused(state: TrainState) -> None:
    """Another implementation of the same optimizer: parameters differ in their last bit."""
    for group in state.optimizer.param_groups:
        group["foreach"], group["fused"] = False, True


@fault("moments-zero", "O9", "optimizer", "+1")
def _moments_zero(state: TrainState) -> None:
    """State is there and zero, as a step without gradients leaves it."""
    for moment in _moments(state):
        moment.zero_()


@fault("scheduler-lost", "O10", "scheduler", "+1")
def _scheduler_lost(state: TrainState) -> None:
    """The schedule starts again."""
    fresh = make_optimizer(state.model, state.config)
    state.scheduler.load_state_dict(make_schedule(fresh, state.config).state_dict())
    for group, new in zip(state.optimizer.param_groups, fresh.param_groups, strict=True):
        group["lr"] = new["lr"]


@fault("scheduler-off-by-one", "O10", "scheduler", "+1")
def _scheduler_ahead(state: TrainState) -> None:
    """One step of the schedule too many: it was saved before, or stepped after the load."""
    need(not isinstance(state.scheduler, ReduceLROnPlateau), "schedule by steps")
    state.optimizer._opt_called = True  # else torch warns of the order
    state.scheduler.step()


@fault("lr-reset", "O11", "optimizer", "+1")
def _lr_reset(state: TrainState) -> None:
    """A schedule that is built after the optimizer was loaded sets the rate back, until it steps."""
    for group in state.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * 0.5 if "initial_lr" in group else state.config.lr * 0.5


@fault("schedule-length-changed", "O12 O13", "lr", "+2")
def _schedule_length(state: TrainState) -> None:
    """The schedule is a function in the code, which now believes in twice as many steps; its state agrees."""
    if isinstance(state.scheduler, LambdaLR):
        longer = replace(state.config, steps=2 * state.config.steps)
        made = make_schedule(make_optimizer(state.model, longer), longer)
        state.scheduler.lr_lambdas = made.lr_lambdas
    else:
        need(isinstance(state.scheduler, OneCycleLR), "schedule by steps")
        for phase in state.scheduler._schedule_phases:
            phase["end_step"] *= 2


@fault("scaler-lost", "O14", "scaler", "never")
def _scaler_lost(state: TrainState) -> None:
    """The loss scale starts again; a power of two changes no bit until something overflows."""
    need(state.scaler.is_enabled(), "loss scale (--precision fp16)")
    state.scaler.load_state_dict(make_scaler(state.config).state_dict())


@fault("growth-tracker-lost", "O14", "scaler", "never")
def _growth_lost(state: TrainState) -> None:
    """The scale is there, the count of steps since it last grew is not."""
    need(state.scaler.is_enabled(), "loss scale (--precision fp16)")
    state.scaler.load_state_dict({**state.scaler.state_dict(), "_growth_tracker": 0})


@fault("lr-tensor", "O16", "optimizer", "never")
def _lr_tensor(state: TrainState) -> None:
    """The learning rate comes back as a tensor: the same number, another type."""
    for group in state.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)


@fault("gradients-lost", "O17", "gradients", "+1", "micro-step")
def _gradients_lost(state: TrainState) -> None:
    """Saved in mid-accumulation: the gradients of the micro-batches before are not in the file."""
    need(state.config.accumulate > 1, "accumulation (--accumulate 2)")
    state.optimizer.zero_grad(set_to_none=True)


# --- model --------------------------------------------------------------------------------------------------------


@fault("ema-lost", "S1", "ema", "never")
def _ema_lost(state: TrainState) -> None:
    """The average starts again from the weights: training is what it was, what is exported is not."""
    need(state.ema, "average (--ema 0.99)")
    assert state.ema is not None
    state.ema.model.load_state_dict(state.model.state_dict())


@fault("ema-counter-lost", "S1", "ema", "never")
def _ema_counter_lost(state: TrainState) -> None:
    """The average is there, the count of its updates is not, so it forgets too fast."""
    need(state.ema, "average (--ema 0.99)")
    assert state.ema is not None
    state.ema.updates = 0


@fault("ema-swapped", "S2 O15", "model", "+0", "save")
def _ema_swapped(state: TrainState) -> None:
    """The averaged weights are put in place for saving and left there: saving changes training."""
    need(state.ema, "average (--ema 0.99)")
    assert state.ema is not None
    state.model.load_state_dict(state.ema.model.state_dict())


@fault("buffers-lost", "S3", "model", "never")
def _buffers_lost(state: TrainState) -> None:
    """Running statistics of batch norm are not restored; only evaluation looks at them."""
    norms = [module for module in state.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    need(norms, "batch norm (--task digits)")
    for module in norms:
        module.reset_running_stats()


@fault("untied", "S4", "gradients", "+1")
def _untied(state: TrainState) -> None:
    """Tied weights become two tensors on loading: equal at first, and the optimizer knows one of them."""
    need(hasattr(state.model, "lm_head"), "tied weights (--task gpt)")
    for model in (state.model, state.ema.model if state.ema is not None else state.model):
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


@fault("eval-mode", "S5", "training mode", "+0")
def _eval_mode(state: TrainState) -> None:
    """Nobody calls train() after the resume: no dropout, and statistics stand still."""
    state.model.eval()


@fault("attribute-lost", "S5", "nothing that is saved", "+0")
def _attribute_lost(state: TrainState) -> None:
    """A plain attribute that no state dict has: the rate of dropout is the class's default again."""
    layers = [module for module in state.model.modules() if isinstance(module, nn.Dropout) and module.p != 0.5]
    need(layers, "dropout of a rate of its own")
    for module in layers:
        module.p = 0.5


@fault("stale-model", "S6", "gradients", "+1")
def _stale_model(state: TrainState) -> None:
    """What computes is a copy from before the optimizer was made: it never moves, and the model gets no gradients."""
    state.model.forward = copy.deepcopy(state.model).forward


@fault("weights-partial", "S7", "model", "+0")
def _weights_partial(state: TrainState) -> None:
    """A layer was renamed, and loading was not strict: it keeps the weights that it was made with."""
    last = [p for p in state.model.parameters() if p.ndim >= 2][-1]
    nn.init.trunc_normal_(last, std=0.02, generator=torch.Generator().manual_seed(0))


# --- counters -----------------------------------------------------------------------------------------------------


@fault("step-lost", "S8", "counters", "never")
def _step_lost(state: TrainState) -> None:
    """The count of steps is one behind: one step too many is trained, and saves fall on other steps."""
    state.counters.step -= 1


@fault("samples-lost", "S8", "counters", "never")
def _samples_lost(state: TrainState) -> None:
    """The count of samples starts again."""
    state.counters.samples = 0


@fault("best-lost", "S9", "counters", "never")
def _best_lost(state: TrainState) -> None:
    """The best metric and the patience are forgotten: the best checkpoint is replaced, stopping comes late."""
    state.counters.best, state.counters.best_step, state.counters.bad_evaluations = None, 0, 0


@fault("plateau-lost", "S9", "scheduler", "later")
def _plateau_lost(state: TrainState) -> None:
    """The plateau schedule forgets its best metric and its bad evaluations: the rate drops later."""
    need(isinstance(state.scheduler, ReduceLROnPlateau), "plateau schedule (--task tabular)")
    assert isinstance(state.scheduler, ReduceLROnPlateau)
    state.scheduler._reset()


@fault("logged-average-lost", "S10", "counters", "never")
def _logged_average_lost(state: TrainState) -> None:
    """The moving average of the loss starts again: training is exact, its log is not."""
    state.counters.average = 0.0


# --- generators ---------------------------------------------------------------------------------------------------


@fault("rng-lost", "R1", "rng", "+0")
def _rng_lost(state: TrainState) -> None:
    """No generator is restored."""
    seed_everything(random.SystemRandom().getrandbits(31))


@fault("host-rng-lost", "R1", "rng", "never")
def _host_rng_lost(state: TrainState) -> None:
    """numpy's and Python's generators are those of the new process, torch's is restored; few tasks draw from them."""
    random.seed(os.urandom(8))
    np.random.seed(int.from_bytes(os.urandom(4), "little"))


@fault("rng-reseeded", "R3", "rng", "+0")
def _rng_reseeded(state: TrainState) -> None:
    """The script seeds after the restore: the draws of step 0 come again."""
    seed_everything(state.config.seed)


@fault("rng-drawn", "D10", "rng", "+0")
def _rng_drawn(state: TrainState) -> None:
    """Something draws between the restore and the first step: an iterator, batches that are skipped."""
    torch.rand(3)


@fault("save-draws", "D11", "rng", "+0", "save")
def _save_draws(state: TrainState) -> None:
    """Saving draws from the generator that training uses, so that it depends on how often one saves."""
    torch.rand(1)


@fault("evaluation-draws", "D11", "rng", "+0", "evaluate")
def _evaluation_draws(state: TrainState) -> None:
    """Evaluation draws from the generator that training uses, so that it depends on how often one evaluates."""
    torch.rand(1)


@fault("second-resume", "D7", "rng", "+0", "second resume")
def _second_resume(state: TrainState) -> None:
    """The first resume is exact, the resume of a resume is not."""
    torch.rand(1)


# --- kernels, environment, checkpoints --------------------------------------------------------------------------------


@fault("threads", "K1", "gradients", "depends")
def _threads(state: TrainState) -> None:
    """Another number of threads adds in another order."""
    torch.set_num_threads(state.config.threads + 1)


@fault("mkldnn-off", "K2", "gradients", "depends")
def _mkldnn(state: TrainState) -> None:
    """Another library computes convolutions and matrix products."""
    torch.backends.mkldnn.enabled = False


@fault("compiled", "K4", "gradients", "+0")
def _compiled(state: TrainState) -> None:
    """The resumed process compiles the model: fused kernels round otherwise, and dropout draws in another way."""
    state.model.compile()


@fault("world-size-changed", "T1", "gradients", "+0")
def _world_size_changed(state: TrainState) -> None:
    """The same batches in two slices, as two processes have them: other sums, other draws, other batch statistics."""
    whole = state.model.forward

    def halves(x: Tensor) -> Tensor:
        if not state.model.training or len(x) % 2:
            return whole(x)
        return torch.stack([whole(x[0::2]), whole(x[1::2])], 1).flatten(0, 1)

    state.model.forward = halves


@fault("unseeded", "K3", "rng", "+0", "start")
def _unseeded(state: TrainState) -> None:
    """Generators start from the clock: two uninterrupted runs differ already."""
    seed_everything(int.from_bytes(os.urandom(4), "little"))


@fault("torn-save", "C1", "nothing", "never", "saved")
def _torn_save(store: CheckpointStore) -> None:
    """The newest checkpoint loses its second half, as by a power cut without fsync: an older one is resumed."""
    path = store.steps()[-1][1]
    if path.is_dir():
        path = max(path.glob("*.distcp"), key=lambda file: file.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)


@fault("checkpoints-ignored", "C1", "counters", "+0", "instead of the resume")
def _checkpoints_ignored(state: TrainState) -> None:
    """The checkpoint is not found: the run starts again from step 0."""


# --- several processes --------------------------------------------------------------------------------------------


@fault("rank-rng-copied", "R2", "rng", "+0")
def _rank_rng_copied(state: TrainState) -> None:
    """The first process's generators are restored in all: everywhere the same dropout."""
    need(world() > 1, "other processes (torchrun, --parallel ddp)")
    restore_generators(first(generators()))


@fault("rank-rng-lost", "R2 T2", "rng", "+0")
def _rank_rng_lost(state: TrainState) -> None:
    """Only the first process's generators were saved; the others seed theirs anew."""
    need(world() > 1, "other processes (torchrun, --parallel ddp)")
    if rank():
        seed_everything(state.config.seed + rank())


@fault("rank-moments-lost", "O2 T2", "optimizer", "+1")
def _rank_moments_lost(state: TrainState) -> None:
    """Only the first process's piece of the moments was saved: of each tensor some rows have theirs, the rest zero."""
    need(world() > 1 and state.config.parallel == "fsdp2", "pieces of moments (torchrun, --parallel fsdp2)")
    if rank():
        for moment in _moments(state):
            moment.to_local().zero_()


@fault("rank-order-copied", "D12", "batch ids", "+0", "order")
def _rank_order_copied(plan: Plan, at: Position) -> Iterator[Chosen]:
    """A sampler that does not know its process: all train on the first one's samples, and the others are never seen."""
    need(plan.world > 1, "other processes (torchrun, --parallel ddp)")
    return replace(plan, rank=0).batches_from(at)


def _moments(state: TrainState) -> Iterator[Tensor]:
    for found in state.optimizer.state.values():
        yield from (m for name, m in found.items() if isinstance(m, Tensor) and name != "step")


def _twins(state: TrainState) -> tuple[nn.Parameter, nn.Parameter]:
    """Two parameters of one shape that both have state."""
    seen: dict[tuple[int, ...], nn.Parameter] = {}
    for group in state.optimizer.param_groups:
        for p in group["params"]:
            if p in state.optimizer.state and tuple(p.shape) in seen:
                return seen[tuple(p.shape)], p
            seen[tuple(p.shape)] = p
    raise UsageError("inject – this run has no two parameters of one shape with state")


NOT_HERE = {
    "R2": "each process has generators of its own: it takes several",
    "R4": "the size of a CUDA generator's state: it takes a GPU, and another driver",
    "E1": "another torch, numpy or processor: a resume notices by itself and says so. On one machine, resume with "
    "`ATEN_CPU_CAPABILITY=default`, which takes the wide instructions away",
}
"""Causes that one process on a CPU cannot show by itself, and why."""

__all__ = ["FAULTS", "NOT_HERE", "Fault", "Faults"]
