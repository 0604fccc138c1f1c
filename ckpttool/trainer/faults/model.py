"""Faults of what belongs to the model: weights, averages, buffers, ties, modes and attributes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ckpttool.trainer.faults.registry import fault, need
from ckpttool.trainer.state import TrainState


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
