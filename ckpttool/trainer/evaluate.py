"""Evaluation that leaves no trace: same generators, same mode, same everything afterwards."""

from __future__ import annotations

import torch
from torch import nn

from ckpttool.trainer.state import generators, restore_generators
from ckpttool.trainer.tasks import TaskParts

BATCH = 256  # samples at a time


@torch.no_grad()
def evaluate(model: nn.Module, parts: TaskParts) -> float:
    """The metric on what is held out, a mean over samples. The model's mode and all generators are put back."""
    training, before, held_out = model.training, generators(), parts.held_out
    model.eval()
    try:
        pairs = zip(held_out.inputs.split(BATCH), held_out.targets.split(BATCH), strict=True)
        return sum(float(parts.metric(model(inputs), targets)) for inputs, targets in pairs) / len(held_out.targets)
    finally:
        model.train(training)
        restore_generators(before)
