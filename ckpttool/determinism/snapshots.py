"""The state of a training process as files of this very check: for transplants, and for a look at single elements."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckpttool.determinism import digesting
from ckpttool.determinism.hooks import original
from ckpttool.determinism.living import Living

State = dict[str, Any]


def write_parts(living: Living, folder: Path, rank: int, name: str) -> None:
    """Everything that lasts, as ``snapshot-RANK-NAME.pt``."""
    original(torch, "save")(read_parts(living), str(folder / f"snapshot-{rank}-{name}.pt"))


def write_tensors(living: Living, folder: Path, rank: int, name: str) -> None:
    """The plain bytes of its tensors, as ``tensors-RANK-NAME.bin``."""
    tensors = [(key, *digesting.raw(value)) for key, value in living.tensors() if isinstance(value, Tensor)]
    head = [(key, kind, shape, len(data)) for key, kind, shape, data in tensors]
    with (folder / f"tensors-{rank}-{name}.bin").open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.writelines(data for *_, data in tensors)


def read_snapshot(folder: Path, rank: int, name: str) -> State:
    """The parts that such a file has."""
    path = folder / f"snapshot-{rank}-{name}.pt"
    found: State = original(torch, "load")(path, weights_only=False)  # our own file, from this very check
    return found


def read_parts(living: Living) -> State:
    """Everything that lasts, by name."""
    names = {id(p): name for name, p in living.parameters()}
    optimizers = [
        {names.get(id(p), str(i)): copied(o.state.get(p, {})) for i, p in enumerate(parameters_of(o))}
        for o in living.optimizers
    ]
    return {
        "params": {name: p.detach().clone() for name, p in living.parameters()},
        "buffers": {name: b.detach().clone() for name, b in living.buffers()},
        "optimizer": optimizers,
        "lr": [[group["lr"] for group in o.param_groups] for o in living.optimizers],
        "scheduler": [s.state_dict() for s in living.schedulers],
        "scaler": [s.state_dict() for s in living.scalers],
        "ema": [m.state_dict() for m in living.averages],
        "rng": {"python": random.getstate(), "torch": torch.get_rng_state(), "numpy": _numpy_state()},
    }


def copied(state: State) -> State:
    """The state of one parameter, with tensors of its own."""
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters of all groups, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _numpy_state() -> Any:
    numpy = sys.modules.get("numpy")
    return None if numpy is None else numpy.random.get_state()
