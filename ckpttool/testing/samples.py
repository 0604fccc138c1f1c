"""Small sound checkpoints, the same bytes every time and made without torch: something to damage."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ckpttool.testing.dcp import dcp_files, rows
from ckpttool.testing.plain import Call, Global, StateDict, Tensor, tensor
from ckpttool.testing.writers import legacy_file, safetensors_file, sharded_files, torch_file

STEPS, PER_EPOCH = 7, 4
RATE = 0.01
SHAPES = {"embed.weight": (48, 64), "hidden.weight": (32, 64), "hidden.bias": (32,), "out.weight": (8, 32)}


def weights(*, seed: int = 7, scale: float = 0.1) -> StateDict:
    """A network's state dict with ``_metadata``: one tensor spans several pages, the others are small."""
    rng = random.Random(seed)
    found = StateDict()
    for name, shape in SHAPES.items():
        found[name] = numbers(shape, lambda: rng.gauss(0, scale))
    modules = {"": {"version": 1}, "embed": {"version": 1}, "hidden": {"version": 1}, "out": {"version": 1}}
    found.state = {"_metadata": OrderedDict(modules)}
    return found


def numbers(shape: tuple[int, ...], draw: Callable[[], float]) -> Tensor:
    """A float32 tensor of drawn values."""
    count = 1
    for size in shape:
        count *= size
    return tensor(shape, struct.pack(f"<{count}f", *(draw() for _ in range(count))))


def training_state(*, seed: int = 7) -> dict[str, Any]:
    """All that a resume needs: weights, AdamW with names, schedule, scaler, EMA, RNG, data, counters."""
    rng = random.Random(seed + 1)
    return {
        "model": weights(seed=seed),
        "optimizer": adamw(rng),
        "scheduler": schedule(),
        "scaler": {
            "scale": 1024.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": STEPS,
        },
        "ema": {"decay": 0.99, "updates": STEPS, "state_dict": weights(seed=seed, scale=0.099)},
        "rng": {
            "python": (3, (*(rng.getrandbits(32) for _ in range(624)), 624), None),
            "torch": tensor((5056,), rng.randbytes(5056), "uint8"),
        },
        "data": {"epoch": STEPS // PER_EPOCH, "position": STEPS % PER_EPOCH, "workers": 0},
        "epoch": STEPS // PER_EPOCH,
        "global_step": STEPS,
        "config": {"width": 32, "lr": RATE, "batch_size": 12, "betas": (0.9, 0.999), "notes": None},
    }


def adamw(rng: random.Random) -> dict[str, Any]:
    """An AdamW state dict after ``STEPS`` steps, its parameters named."""
    state = {
        place: {
            "step": tensor((), struct.pack("<f", STEPS)),
            "exp_avg": numbers(shape, lambda: rng.gauss(0, 0.01)),
            "exp_avg_sq": numbers(shape, lambda: rng.gauss(0, 0.01) ** 2 + 1e-8),
        }
        for place, shape in enumerate(SHAPES.values())
    }
    group = {
        "lr": RATE,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.01,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": True,
        "initial_lr": RATE,
        "param_names": list(SHAPES),
        "params": list(range(len(SHAPES))),
    }
    return {"state": state, "param_groups": [group]}


def schedule() -> dict[str, Any]:
    """A StepLR that has not yet reached its first drop."""
    return {
        "step_size": 100,
        "gamma": 0.1,
        "base_lrs": [RATE],
        "last_epoch": STEPS,
        "_step_count": STEPS + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [RATE],
    }


def sealed_files(files: dict[str, bytes], *, together: bool = False) -> dict[str, bytes]:
    """Some checkpoint files, each with its manifest; or ``together``, with one for their folder."""
    from ckpttool.verbs.seal import seal

    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
            os.utime(Path(folder) / name, (0, 0))
            if not together:
                seal(Path(folder) / name, sha256=True)
        if together:
            seal(folder)
        found = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return {name: re.sub(rb'"created": "[^"]*"', b'"created": ""', data) for name, data in found.items()}


def run_files(*, seed: int = 7) -> dict[str, bytes]:
    """A checkpoint folder of transformers' Trainer: model, optimizer, schedule, generators, state."""
    state = training_state(seed=seed)
    progress = {"global_step": STEPS, "epoch": STEPS / PER_EPOCH, "max_steps": 20, "log_history": []}
    arguments = Call(Global("transformers.training_args", "TrainingArguments"), (), {"seed": seed}, how="NEWOBJ")
    return {
        "model.safetensors": safetensors_file(state["model"], {"format": "pt"}),
        "optimizer.pt": torch_file(state["optimizer"]),
        "scheduler.pt": torch_file(state["scheduler"]),
        "rng_state.pth": torch_file({"python": state["rng"]["python"], "cpu": state["rng"]["torch"]}),
        "training_args.bin": torch_file(arguments),
        "trainer_state.json": json.dumps(progress, indent=2).encode(),
    }


def distributed_state(*, seed: int = 7) -> dict[str, Any]:
    """What FSDP's helpers save: weights, the optimizer by names, the step."""
    state = training_state(seed=seed)
    names, optimizer = list(SHAPES), state["optimizer"]
    by_name = {name: optimizer["state"][place] for place, name in enumerate(names)}
    groups = [{**group, "params": names} for group in optimizer["param_groups"]]
    for group in groups:
        del group["param_names"]
    moments = {"state": by_name, "param_groups": groups}
    return {"model": dict(state["model"]), "optimizer": moments, "step": STEPS}


FILES: dict[str, Callable[[], bytes]] = {
    "torch-zip": lambda: torch_file(training_state()),
    "torch-legacy": lambda: legacy_file(training_state()),
    "safetensors": lambda: safetensors_file(weights(), {"format": "pt"}),
}
"""A sound file of each format, by the format's name."""

FOLDERS: dict[str, Callable[[], dict[str, bytes]]] = {
    "sharded": lambda: sharded_files(weights()),
    "run": run_files,
    "dcp": lambda: dcp_files(distributed_state(), lambda _, found: rows(found, 2)),
    "file": lambda: {"checkpoint.pt": torch_file(training_state())},
    "sealed": lambda: sealed_files({"weights.safetensors": safetensors_file(weights(), {"format": "pt"})}),
    "sealed-folder": lambda: sealed_files(sharded_files(weights()), together=True),
    "sealed-zip": lambda: sealed_files({"checkpoint.pt": torch_file(training_state())}),
}
"""Sound folders as ``{file name: content}``: shards with their index, a run's folder, a named file, sealed ones."""
