"""Evaluation that leaves no trace: same generators, same mode, same everything afterwards."""

from __future__ import annotations

import torch
from torch import nn

from ckpttool.trainer.state import generators, restore_generators
from ckpttool.trainer.tasks import Examples, TaskParts

BATCH = 256  # samples at a time


@torch.no_grad()
def evaluate(model: nn.Module, parts: TaskParts) -> float:
    """The metric on what is held out, a mean over samples. The model's mode and all generators are put back."""
    training, before = model.training, generators()
    model.eval()
    try:
        total = sum(_score(model, parts, parts.held_out, start) for start in range(0, len(parts.held_out), BATCH))
    finally:
        model.train(training)
        restore_generators(before)
    return total / len(parts.held_out)


def _score(model: nn.Module, parts: TaskParts, examples: Examples, start: int) -> float:
    chosen = slice(start, start + BATCH)
    return float(parts.metric(model(examples.inputs[chosen]), examples.targets[chosen]))
