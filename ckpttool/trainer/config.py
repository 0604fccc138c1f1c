"""Every switch of the trainer in one frozen value: from the command line, a TOML or a Python file, or a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ckpttool import UsageError

Value = None | bool | int | float | str

# A type, what it starts from, and what it stays below.
Count = Annotated[int, 0, math.inf]
Some = Annotated[int, 1, math.inf]
Seed = Annotated[int, 0, 2**63]
Amount = Annotated[float, 0.0, math.inf]
Share = Annotated[float, 0.0, 1.0]


@dataclass(frozen=True, slots=True)
class Config:
    """What a run is. ``free`` tells which fields may change on a resume; all others are part of the run."""

    task: Literal["digits", "gpt", "tabular"] = "digits"
    steps: Some = 300  # optimizer steps in all
    batch_size: Some = 64  # samples per step and micro-batch, over all processes
    accumulate: Some = 1  # micro-batches per step
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Amount = 3e-3  # peak learning rate
    weight_decay: Amount = 0.01  # on matrices only
    schedule: Literal["cosine", "onecycle", "plateau", "constant"] = "cosine"
    warmup: Count = 20  # steps of linear warm-up
    clip: Amount = 1.0  # largest gradient norm; 0: none
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: Share = 0.99  # decay of the averaged weights; 0: none
    dropout: Share = 0.1
    augment: bool = True
    activation_checkpointing: bool = False
    compile: bool = False
    deterministic: bool = True
    threads: Some = 1  # of a process: another number adds floats in another order
    seed: Seed = 0
    eval_every: Count = 50  # steps; 0: never
    # --- from here on free to change on a resume: what does not change the trajectory
    patience: Count = 0  # evaluations without a better metric before it stops; 0: never
    inject: str = ""  # faults on purpose, separated by commas; free, so that one can be put into the resumed half alone
    parallel: Literal["none", "ddp", "fsdp2"] = "none"  # how processes that torchrun started work together
    save_as: Literal["file", "dcp"] = "file"  # one file, or a folder to which every process writes its pieces
    workers: Count = 0  # processes that load data
    save_every: Count = 50  # steps; 0: never
    save_every_epochs: Count = 0
    save_every_seconds: Amount = 0.0
    save_budget: Share = 0.0  # share of time that saving may take; chooses the interval in place of save_every
    save_async: bool = False  # write off a copy, while training goes on
    failures_every: Amount = 0.0  # seconds between failures, for the advice on intervals
    keep: Some = 3  # newest checkpoints
    keep_every: Count = 0  # and those whose step it divides
    keep_best: Count = 1  # and the best
    on_full_disk: Literal["stop", "go-on"] = "stop"
    log_every: Some = 10  # steps
    tensorboard: bool = False
    progress: bool = True


NAMES = [field.name for field in fields(Config)]


def free(config: Config) -> frozenset[str]:
    """What may change on a resume: how long to train too, where the learning rate does not depend on it."""
    steps = ["steps"] if config.schedule in ("constant", "plateau") else []
    return frozenset(NAMES[NAMES.index("patience") :] + steps)


DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "digits": {},
    "gpt": {"batch_size": 16, "lr": 1e-3, "augment": False},
    "tabular": {
        "batch_size": 32, "lr": 1e-2, "schedule": "plateau", "augment": False, "patience": 10, "eval_every": 14,
    },
}  # fmt: skip
"""What is different for a task unless it is said."""


def make_config(given: Mapping[str, Value]) -> Config:
    """The configuration that these values mean; the task's defaults fill the rest. Raises ``UsageError``."""
    kinds = get_type_hints(Config, include_extras=True)
    for name in given.keys() - kinds.keys():
        near = get_close_matches(name, NAMES, 1)
        raise UsageError(f"no setting is called '{name}'{f'; did you mean {near[0]}?' if near else ''}")
    task = _fitting("task", given.get("task", "digits"), kinds["task"])
    settings = {**DEFAULTS[str(task)], **given}
    if settings.get("save_budget"):
        settings.setdefault("save_every", 0)
    config = Config(**{name: _fitting(name, value, kinds[name]) for name, value in settings.items()})
    if config.save_async and config.save_as == "dcp":
        raise UsageError("save_async and save_as = dcp: pieces are written while all wait; choose one of the two")
    return config


def _fitting(name: str, value: Value, kind: Any) -> Any:
    """The value, if this kind of field takes it: an int may stand for a float, and text for a share, as ``2%``."""
    parts, found = get_args(kind), value
    if get_origin(kind) is Literal:
        needed, fits = f"one of {', '.join(parts)}", value in parts
    elif parts:
        base, low, high = parts
        if base is float and (type(value) is int or (kind == Share and isinstance(value, str))):
            found = _number(str(value))
        whole, below = "whole " if base is int else "", f" and less than {high}" if high < math.inf else ""
        needed, fits = f"a {whole}number from {low} on{below}", type(found) is base and low <= found < high
    else:
        needed, fits = {bool: "true or false", str: "text"}[kind], type(value) is kind
    if not fits:
        raise UsageError(f"{name} = {value!r}: {needed} is needed")
    return found


def _number(text: str) -> float:
    """What a text like ``0.02`` or ``2%`` means; not a number where it means none."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return math.nan


def differences(saved: Mapping[str, Value], now: Config) -> list[str]:
    """What differs between a run as it was saved and as it is asked for, free settings left out: one line for each."""
    current = asdict(now)
    return [
        f"{name}: saved {saved.get(name, '(nothing)')!r}, now {current.get(name, '(nothing)')!r}"
        for name in {**saved, **current}
        if name not in free(now) and saved.get(name) != current.get(name)
    ]
