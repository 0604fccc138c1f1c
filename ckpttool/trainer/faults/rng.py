"""Faults of generators."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from ckpttool.trainer.faults.registry import fault
from ckpttool.trainer.state import TrainState, seed_everything


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
