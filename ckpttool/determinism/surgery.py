"""Parts of a live training state put in or broken: the proof of what was lost, and of what would be seen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ckpttool.determinism.living import Living
from ckpttool.determinism.snapshots import State, copied, parameters_of


def transplant(living: Living, saved: State, parts: Iterable[str]) -> None:
    """Replace parts of the live state by those of a snapshot."""
    for part in parts:
        _PUT[part](living, saved[part])


@torch.no_grad()
def _put_tensors(live: list[tuple[str, Tensor]], saved: State) -> None:
    for name, tensor in live:
        if name in saved and saved[name].shape == tensor.shape:
            tensor.copy_(saved[name])


def _put_optimizer(living: Living, saved: list[State]) -> None:
    names = {id(p): name for name, p in living.parameters()}
    for optimizer, states in zip(living.optimizers, saved, strict=False):
        for i, p in enumerate(parameters_of(optimizer)):
            state = states.get(names.get(id(p), str(i)))
            if state:
                current = optimizer.state[p]  # which a step that is under way may hold: LBFGS calls the model
                current.clear()
                current.update(copied(state))


def _put_lr(living: Living, saved: list[list[float]]) -> None:
    for optimizer, rates in zip(living.optimizers, saved, strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate


def _put_states(things: Iterable[Any], saved: list[State]) -> None:
    for thing, state in zip(things, saved, strict=False):
        thing.load_state_dict(state)


def _put_rng(_: Living, saved: State) -> None:
    random.setstate(saved["python"])
    torch.set_rng_state(saved["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and saved["numpy"] is not None:
        numpy.random.set_state(saved["numpy"])


_PUT: dict[str, Callable[[Living, Any], None]] = {
    "params": lambda living, saved: _put_tensors(living.parameters(), saved),
    "buffers": lambda living, saved: _put_tensors(living.buffers(), saved),
    "optimizer": _put_optimizer,
    "lr": _put_lr,
    "scheduler": lambda living, saved: _put_states(living.schedulers, saved),
    "scaler": lambda living, saved: _put_states(living.scalers, saved),
    "ema": lambda living, saved: _put_states(living.averages, saved),
    "rng": _put_rng,
}


# --- breaking ------------------------------------------------------------------------------------------------


def break_part(living: Living, part: str) -> None:
    """Lose a part on purpose, to see whether this training would show it."""
    _BREAK[part](living)


def _lose_optimizer(living: Living) -> None:
    for optimizer in living.optimizers:
        optimizer.state.clear()


def _lose_rng(_: Living) -> None:
    random.seed(271828)
    torch.manual_seed(271828)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(271828)


@torch.no_grad()
def _lose_buffers(living: Living) -> None:
    for _, buffer in living.buffers():
        buffer.zero_()


def _lose_lr(living: Living) -> None:
    for optimizer in living.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 1.5


def _lose_scheduler(living: Living) -> None:
    for scheduler in living.schedulers:
        scheduler.last_epoch = 0
        if hasattr(scheduler, "_reset"):  # ReduceLROnPlateau: the best metric, and how long it has been the best
            scheduler._reset()


def _lose_scaler(living: Living) -> None:
    for scaler in living.scalers:
        if state := scaler.state_dict():  # none of one that is disabled
            scaler.load_state_dict({**state, "scale": torch.amp.GradScaler("cpu").get_scale(), "_growth_tracker": 0})


_BREAK: dict[str, Callable[[Living], None]] = {
    "optimizer": _lose_optimizer,
    "rng": _lose_rng,
    "buffers": _lose_buffers,
    "lr": _lose_lr,
    "scheduler": _lose_scheduler,
    "scaler": _lose_scaler,
}
