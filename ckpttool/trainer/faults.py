"""Every way to break a resume that a processor can show, on purpose: ``--inject NAME``. Each is a few lines.

They strike after a restore (the resumed half alone), before a save, at a micro-step or from the start. The names in
brackets are those of the taxonomy in the documentation, where the symptom of each is told.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor, nn

from ckpttool import UsageError
from ckpttool.trainer.data import Position
from ckpttool.trainer.optim import make_optimizer, make_scaler, make_schedule
from ckpttool.trainer.state import Counters, TrainState, seed_everything

Act = Callable[[TrainState], None]
Move = Callable[[Position], Position]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its name, when it strikes, what breaks first, what it is like in real code, and what it does."""

    name: str
    when: str
    component: str
    about: str
    act: Act


FAULTS: dict[str, Fault] = {}
MOVES: dict[str, tuple[str, Move]] = {
    "data-restarted": ("the epoch starts again (D1)", lambda at: Position(at.epoch, 0)),
    "epoch-lost": ("the order of epoch 0 comes again (D2)", lambda at: Position(0, at.batch)),
    "data-ahead": (
        "batches that were fetched count as used (D5)",
        lambda at: Position(at.epoch, at.batch + 2),
    ),
    "order-changed": (
        "another shuffle of the same epoch (D3)",
        lambda at: Position(at.epoch + 1_000_000, at.batch),
    ),
}
"""Faults of the data stream: where it starts after a resume."""


def fault(name: str, component: str, when: str = "resume") -> Callable[[Act], Act]:
    """Register the decorated function; the first line of its docstring says what it is like."""

    def register(act: Act) -> Act:
        FAULTS[name] = Fault(name, when, component, (act.__doc__ or "").partition("\n")[0], act)
        return act

    return register


class Faults:
    """The faults that were asked for, ready to strike. Raises ``UsageError`` for a name that is none."""

    def __init__(self, names: str) -> None:
        self.names = [name.strip() for name in names.split(",") if name.strip()]
        for name in self.names:
            if name not in FAULTS and name not in MOVES:
                near = get_close_matches(name, [*FAULTS, *MOVES], 1)
                hint = f"; did you mean {near[0]}?" if near else f": {', '.join([*FAULTS, *MOVES])}"
                raise UsageError(f"no fault is called '{name}'{hint}")
        self.resumed = False
        self.struck: set[str] = set()

    def after_resume(self, state: TrainState) -> None:
        """Strike at what was just restored, or at the start of a run that was not."""
        self.resumed = state.counters.resumes > 0
        self._strike("resume" if self.resumed else "start", state)
        if state.counters.resumes > 1:
            self._strike("second resume", state)
        self._strike("always", state)

    def start(self, at: Position) -> Position:
        """Where the data stream starts."""
        for name in self.names if self.resumed else ():
            at = MOVES[name][1](at) if name in MOVES else at
        return at

    def before_save(self, state: TrainState) -> TrainState:
        """What is saved in place of the state; the state itself may change too."""
        self._strike("save", state)
        return state

    def micro_step(self, state: TrainState) -> None:
        """Once, after the first micro-batch that follows a resume."""
        if self.resumed and "micro" not in self.struck:
            self.struck.add("micro")
            self._strike("micro", state)

    def _strike(self, when: str, state: TrainState) -> None:
        for name in self.names:
            if name in FAULTS and FAULTS[name].when == when:
                FAULTS[name].act(state)


# --- optimizer, schedule, scaler -----------------------------------------------------------------------------


@fault("optimizer-lost", "optimizer")
def _optimizer_lost(state: TrainState) -> None:
    """The optimizer's state is not loaded (O1)."""
    state.optimizer.state.clear()


@fault("moments-permuted", "optimizer")
def _moments_permuted(state: TrainState) -> None:
    """Two parameters of one shape get each other's moments (O3)."""
    first, second = _twins(state)
    states = state.optimizer.state
    states[first], states[second] = states[second], states[first]


@fault("moments-half", "optimizer")
def _moments_half(state: TrainState) -> None:
    """Moments were saved in half precision (O5)."""
    for moment in _moments(state):
        moment.copy_(moment.half())


@fault("moments-zero", "optimizer")
def _moments_zero(state: TrainState) -> None:
    """State is there and zero, as after a step without gradients (O9)."""
    for moment in _moments(state):
        moment.zero_()


@fault("optimizer-steps-lost", "optimizer")
def _steps_lost(state: TrainState) -> None:
    """The optimizer's own step count starts again: bias correction is wrong (O7)."""
    for found in state.optimizer.state.values():
        if "step" in found:
            found["step"] = torch.zeros_like(found["step"])


@fault("fused", "params")
def _fused(state: TrainState) -> None:
    """Another implementation of the same optimizer (O8)."""
    for group in state.optimizer.param_groups:
        group["foreach"], group["fused"] = False, True


@fault("scheduler-lost", "scheduler")
def _scheduler_lost(state: TrainState) -> None:
    """The schedule starts again (O10)."""
    fresh = make_optimizer(state.model, state.config)
    state.scheduler.load_state_dict(make_schedule(fresh, state.config).state_dict())
    for group, new in zip(state.optimizer.param_groups, fresh.param_groups, strict=True):
        group["lr"] = new["lr"]


@fault("scheduler-off-by-one", "scheduler")
def _scheduler_ahead(state: TrainState) -> None:
    """One step of the schedule too many (O10)."""
    state.optimizer._opt_called = True  # else torch warns of the order
    state.scheduler.step(*([0.0] if hasattr(state.scheduler, "num_bad_epochs") else []))


@fault("lr-reset", "lr")
def _lr_reset(state: TrainState) -> None:
    """A schedule that is built after the optimizer was loaded resets the rate (O11)."""
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.lr * 0.5


@fault("scaler-lost", "scaler")
def _scaler_lost(state: TrainState) -> None:
    """The loss scale starts again (O14)."""
    state.scaler.load_state_dict(make_scaler(state.config).state_dict())


@fault("growth-tracker-lost", "scaler")
def _growth_lost(state: TrainState) -> None:
    """The scale is there, the steps since it last grew are not (O14)."""
    state.scaler.load_state_dict({**state.scaler.state_dict(), "_growth_tracker": 0})


@fault("gradients-lost", "gradients", when="micro")
def _gradients_lost(state: TrainState) -> None:
    """Saved in mid-accumulation, and the gradients so far are not in the file (O17)."""
    state.optimizer.zero_grad(set_to_none=True)


# --- model ---------------------------------------------------------------------------------------------------


@fault("weights-rounded", "params")
def _weights_rounded(state: TrainState) -> None:
    """Master weights rebuilt from half-precision ones (O6)."""
    with torch.no_grad():
        for p in state.model.parameters():
            p.copy_(p.bfloat16())


@fault("buffers-lost", "buffers")
def _buffers_lost(state: TrainState) -> None:
    """Running statistics of batch norm are not restored (S3)."""
    for module in state.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()


@fault("untied", "params")
def _untied(state: TrainState) -> None:
    """Tied weights become two tensors on loading (S4)."""
    head = getattr(state.model, "lm_head", None)
    if head is None:
        raise UsageError("untied: this task has no tied weights; use --task gpt")
    head.weight = nn.Parameter(head.weight.detach().clone())


@fault("eval-mode", "params")
def _eval_mode(state: TrainState) -> None:
    """Nobody calls train() after the resume: no dropout, frozen statistics (S5)."""
    state.model.eval()


@fault("ema-lost", "ema")
def _ema_lost(state: TrainState) -> None:
    """The average starts again from the weights (S1)."""
    if state.ema is not None:
        state.ema.model.load_state_dict(state.model.state_dict())


@fault("ema-counter-lost", "ema")
def _ema_counter_lost(state: TrainState) -> None:
    """The average is there, the count of its updates is not (S1)."""
    if state.ema is not None:
        state.ema.updates = 0


@fault("ema-swapped", "params", when="save")
def _ema_swapped(state: TrainState) -> None:
    """The averaged weights are put in place for saving, and left there: saving changes training (S2)."""
    if state.ema is not None:
        state.model.load_state_dict(state.ema.model.state_dict())


# --- counters ------------------------------------------------------------------------------------------------


@fault("counters-lost", "counters")
def _counters_lost(state: TrainState) -> None:
    """The count of samples starts again (S8)."""
    state.counters.samples = 0


@fault("best-lost", "counters")
def _best_lost(state: TrainState) -> None:
    """The best metric and the patience are forgotten (S9)."""
    fresh = Counters(state.counters.step, state.counters.samples)
    state.counters.best, state.counters.best_step = fresh.best, fresh.best_step
    state.counters.bad_evaluations = fresh.bad_evaluations


# --- generators ----------------------------------------------------------------------------------------------


@fault("rng-lost", "rng")
def _rng_lost(state: TrainState) -> None:
    """No generator is restored (R1)."""
    seed_everything(random.SystemRandom().getrandbits(31))


@fault("rng-reseeded", "rng")
def _rng_reseeded(state: TrainState) -> None:
    """The start of the script seeds again after the restore (R3)."""
    seed_everything(state.config.seed)


@fault("rng-drawn", "rng")
def _rng_drawn(state: TrainState) -> None:
    """Something draws between the restore and the first step (D10)."""
    torch.rand(3)


@fault("numpy-rng-lost", "rng")
def _numpy_lost(state: TrainState) -> None:
    """numpy's and Python's generators are not restored, torch's is (R1)."""
    random.seed(state.config.seed)
    np.random.seed(state.config.seed % 2**32)


@fault("save-draws", "rng", when="save")
def _save_draws(state: TrainState) -> None:
    """Saving draws from the generator that training uses (D11)."""
    torch.rand(1)


# --- kernels and environment -----------------------------------------------------------------------------------


@fault("threads", "gradients")
def _threads(state: TrainState) -> None:
    """Another number of threads adds in another order (K1)."""
    torch.set_num_threads(state.config.threads + 1)


@fault("mkldnn-off", "gradients")
def _mkldnn(state: TrainState) -> None:
    """Another library computes the convolutions (K2)."""
    torch.backends.mkldnn.enabled = False


@fault("unseeded", "rng", when="start")
def _unseeded(state: TrainState) -> None:
    """No run is like another: generators start from the clock (K3)."""
    seed_everything(int.from_bytes(os.urandom(4), "little"))


@fault("second-resume", "rng", when="second resume")
def _second_resume(state: TrainState) -> None:
    """The first resume is exact, the resume of a resume is not (D7)."""
    torch.rand(1)


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
    raise UsageError("moments-permuted: no two parameters of one shape have state")


__all__ = ["FAULTS", "MOVES", "Fault", "Faults"]
