"""Faults of optimizer, schedule, loss scale and gradients."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from ckpttool import UsageError
from ckpttool.trainer.faults.registry import fault, need
from ckpttool.trainer.optim import load_named_state, make_optimizer, make_scaler, make_schedule, named_state
from ckpttool.trainer.state import TrainState


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
    for moment in moments(state):
        moment.copy_(moment.bfloat16())


@fault("moments-half", "O5", "optimizer", "+1")
def _moments_half(state: TrainState) -> None:
    """Moments were saved in half precision: small squares became zero."""
    for moment in moments(state):
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
    for moment in moments(state):
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


def moments(state: TrainState) -> Iterator[Tensor]:
    """The optimizer's moments, without its count of steps."""
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
