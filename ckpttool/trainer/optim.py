"""Optimizer, learning-rate schedule, averaged weights and loss scaling: everything between a gradient and a weight."""

from __future__ import annotations

import copy
import math
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from ckpttool import UsageError
from ckpttool.trainer.config import Config
from ckpttool.trainer.distributed import piece_of, pieces

State = dict[str, Any]


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """AdamW or SGD in two groups: matrices decay, vectors (norms, biases) do not. Tied weights are one parameter."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def make_schedule(optimizer: Optimizer, config: Config) -> LRScheduler:
    """What ``schedule`` names; warm-up and decay are functions of the step alone."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    if config.schedule == "onecycle":
        warm = min(0.9, max(1, config.warmup) / config.steps)
        return OneCycleLR(optimizer, max_lr=config.lr, total_steps=config.steps + 1, pct_start=warm)
    return LambdaLR(optimizer, lambda step: _factor(step, config))


def _factor(step: int, config: Config) -> float:
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def make_scaler(config: Config) -> torch.amp.GradScaler:
    """Loss scaling, of use with fp16 only; it grows often enough for short runs to see it."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=40, enabled=config.precision == "fp16")


class Average:
    """An exponential moving average of a model's floating-point weights and buffers; counters are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one more state of the model in. Early on the decay is smaller, so that the start is forgotten."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in zip(*([*each.parameters(), *each.buffers()] for each in (self.model, model)), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    def state_dict(self) -> State:
        return {"state_dict": self.model.state_dict(), "updates": self.updates, "decay": self.decay}

    def load_state_dict(self, state: State) -> None:
        self.model.load_state_dict(pieces(state["state_dict"], self.model))
        self.updates, self.decay = state["updates"], state["decay"]


# --- optimizer state by name ---------------------------------------------------------------------------------


def named_state(optimizer: Optimizer, model: nn.Module) -> State:
    """The optimizer's state dict with parameters by name, where torch has numbers and matches by position alone.

    Keys are sorted, for a load may leave them in any order.
    """
    found, names = optimizer.state_dict(), _names(optimizer, model)
    by_number = list(chain(*names))  # torch counts them in this order
    groups = zip(found["param_groups"], names, strict=True)
    return {
        "state": {by_number[i]: dict(sorted(own.items())) for i, own in sorted(found["state"].items())},
        "param_groups": [{**dict(sorted(group.items())), "params": here} for group, here in groups],
    }


def load_named_state(optimizer: Optimizer, model: nn.Module, state: State) -> None:
    """Give each parameter the state that was saved under its name. Raises ``UsageError`` naming what does not fit."""
    live, saved = _names(optimizer, model), [group["params"] for group in state["param_groups"]]
    if [*map(sorted, live)] != [*map(sorted, saved)]:
        odd = ", ".join(sorted({*chain(*live)} ^ {*chain(*saved)})) or "the same ones in other groups"
        raise UsageError(f"the optimizer's groups hold other parameters than those that were saved: {odd}")
    numbers = {name: i for i, name in enumerate(chain(*live))}
    if unread := state["state"].keys() - numbers.keys():
        raise UsageError(f"the optimizer has state of no parameter: {', '.join(sorted(unread))}")
    owners, found = dict(model.named_parameters()), {}
    for name, own in state["state"].items():
        found[numbers[name]] = {key: piece_of(value, owners[name]) for key, value in own.items()}
    groups = zip(state["param_groups"], live, strict=True)
    numbered = [{**group, "params": [numbers[name] for name in here]} for group, here in groups]
    optimizer.load_state_dict({"state": found, "param_groups": numbered})


def _names(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """The names of the parameters in each group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
