"""Faults of what a run counts and remembers beside its tensors."""

from __future__ import annotations

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ckpttool.trainer.faults.registry import fault, need
from ckpttool.trainer.state import TrainState


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
