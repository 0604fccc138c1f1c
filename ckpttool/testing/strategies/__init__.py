"""Hypothesis strategies: dtypes, shapes, views, trees, optimizers, whole checkpoints.

What ``real`` defines builds real torch objects and needs torch only when it draws; the rest needs none.
Arguments are checked when a strategy draws. Everything shrinks towards one small contiguous float32 tensor.
"""

from __future__ import annotations

from ckpttool.testing.strategies.edits import Edit, edits, states
from ckpttool.testing.strategies.geometry import TYPED, View, dtypes, names, shapes, views
from ckpttool.testing.strategies.operations import Grown, expressions, forms, moves
from ckpttool.testing.strategies.plain import (
    files,
    legacy_files,
    plain_state_dicts,
    plain_tensors,
    plain_trees,
    safetensors_files,
    torch_files,
)
from ckpttool.testing.strategies.real import checkpoints, optimizers, state_dicts, tensors, trees

__all__ = [
    "TYPED",
    "Edit",
    "Grown",
    "View",
    "checkpoints",
    "dtypes",
    "edits",
    "expressions",
    "files",
    "forms",
    "legacy_files",
    "moves",
    "names",
    "optimizers",
    "plain_state_dicts",
    "plain_tensors",
    "plain_trees",
    "safetensors_files",
    "shapes",
    "state_dicts",
    "states",
    "tensors",
    "torch_files",
    "trees",
    "views",
]
