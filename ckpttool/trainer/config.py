"""Every switch of the trainer in one frozen value: from the command line, a TOML or a Python file, or a checkpoint."""

from __future__ import annotations

import math
import runpy
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args, get_type_hints

from ckpttool import UsageError

Task = Literal["digits", "gpt", "tabular"]
Value = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Config:
    """What a run is. ``free`` tells which fields may change on a resume; all others are part of the run."""

    task: Task = "digits"
    steps: int = 300  # optimizer steps in all
    batch_size: int = 64  # samples per step and micro-batch, over all processes
    accumulate: int = 1  # micro-batches per step
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 3e-3  # peak learning rate
    weight_decay: float = 0.01  # on matrices only
    schedule: Literal["cosine", "onecycle", "plateau", "constant"] = "cosine"
    warmup: int = 20  # steps of linear warm-up
    clip: float = 1.0  # largest gradient norm; 0: none
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = 0.99  # decay of the averaged weights; 0: none
    dropout: float = 0.1
    augment: bool = True
    activation_checkpointing: bool = False
    compile: bool = False
    deterministic: bool = True
    threads: int = 1  # of a process: another number adds floats in another order
    seed: int = 0
    eval_every: int = 50  # steps; 0: never
    patience: int = 0  # evaluations without a better metric before it stops; 0: never
    inject: str = ""  # faults on purpose, separated by commas
    # --- free to change on resume
    parallel: Literal["none", "ddp", "fsdp2"] = "none"  # how processes that torchrun started work together
    save_as: Literal["file", "dcp"] = "file"  # one file, or a folder to which every process writes its pieces
    workers: int = 0  # processes that load data
    save_every: int = 50  # steps; 0: never
    save_every_epochs: int = 0
    save_every_seconds: float = 0.0
    save_budget: float = 0.0  # share of time that saving may take; chooses the interval in place of save_every
    save_async: bool = False  # write off a copy, while training goes on
    failures_every: float = 0.0  # seconds between failures, for the advice on intervals
    keep: int = 3  # newest checkpoints
    keep_every: int = 0  # and those whose step it divides
    keep_best: int = 1  # and the best
    on_full_disk: Literal["stop", "go-on"] = "stop"
    log_every: int = 10  # steps
    tensorboard: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name, low in _LEAST.items():
            if not low <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} = {getattr(self, name)}: a number from {low} on is needed")
        for name, high in _BELOW.items():
            if getattr(self, name) >= high:
                raise UsageError(f"{name} = {getattr(self, name)}: less than {high} is needed")
        for name, kind in get_type_hints(Config).items():
            if (choices := get_args(kind)) and getattr(self, name) not in choices:
                raise UsageError(f"{name} = {getattr(self, name)!r}: one of {', '.join(choices)} is needed")
        if self.save_async and self.save_as == "dcp":
            raise UsageError("save_async and save_as = dcp: pieces are written while all wait; choose one of the two")


_LEAST: Mapping[str, float] = {
    "steps": 1, "batch_size": 1, "accumulate": 1, "lr": 0.0, "weight_decay": 0.0, "warmup": 0, "clip": 0.0, "ema": 0.0,
    "dropout": 0.0, "threads": 1, "seed": 0, "eval_every": 0, "patience": 0, "workers": 0, "save_every": 0,
    "save_every_epochs": 0, "save_every_seconds": 0.0, "save_budget": 0.0, "failures_every": 0.0, "keep": 1,
    "keep_every": 0, "keep_best": 0, "log_every": 1,
}  # fmt: skip
_BELOW: Mapping[str, float] = {"ema": 1.0, "dropout": 1.0, "save_budget": 1.0, "seed": 2**63}

FREE = frozenset(
    "parallel save_as workers save_every save_every_epochs save_every_seconds save_budget save_async failures_every "
    "keep keep_every keep_best on_full_disk patience log_every tensorboard progress inject".split()
)
"""What does not change the trajectory. ``inject`` is here so that a fault can be put into the resumed half alone."""


def free(config: Config) -> frozenset[str]:
    """What may change on a resume: how long to train too, where the learning rate does not depend on it."""
    return FREE | {"steps"} if config.schedule in ("constant", "plateau") else FREE


DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "digits": {},
    "gpt": {"batch_size": 16, "lr": 1e-3, "augment": False},
    "tabular": {
        "batch_size": 32, "lr": 1e-2, "schedule": "plateau", "augment": False, "patience": 10, "eval_every": 14,
    },
}  # fmt: skip
"""What is different for a task unless it is said."""


def make_config(given: Mapping[str, Value], where: str = "") -> Config:
    """The configuration that these values mean; the task's defaults fill the rest. Raises ``UsageError``."""
    known = get_type_hints(Config)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{where or 'configuration'} – no setting is called '{name}'{hint}")
    task = given.get("task", "digits")
    if task not in DEFAULTS:
        choices = ", ".join(DEFAULTS)
        raise UsageError(f"{where or 'configuration'} – task = {task!r}: one of {choices} is needed")
    settings = {**DEFAULTS[str(task)], **given}
    if settings.get("save_budget"):
        settings.setdefault("save_every", 0)
    typed = {name: _typed(name, value, known[name], where) for name, value in settings.items()}
    return Config(**typed)  # type: ignore[arg-type]


def _typed(name: str, value: Value, kind: type, where: str) -> Value:
    """A value of the field's type: an int may stand for a float, and nothing for anything else."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if name == "save_budget" and isinstance(value, str):
        try:
            return share(value)
        except ValueError:
            raise UsageError(f"{where or 'configuration'} – {name} = {value!r}: a share, as 0.02 or 2%") from None
    wanted = str if get_args(kind) else kind
    if type(value) is not wanted:
        raise UsageError(f"{where or 'configuration'} – {name} = {value!r}: {wanted.__name__} is needed")
    return value


def share(text: str) -> float:
    """A share of something, as ``0.02`` or ``2%``. Raises ``ValueError``."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def read_config(path: str | Path) -> dict[str, Value]:
    """The settings in a TOML file, or the plain values under lower-case names of a Python file (which is run)."""
    place = Path(path)
    try:
        if place.suffix == ".py":
            names = runpy.run_path(str(place)).items()
            return {name: value for name, value in names if name.islower() and name[0] != "_" and _plain(value)}
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{place} – {error.strerror}") from error
    except Exception as error:  # a Python file may raise anything
        raise UsageError(f"{place} – {type(error).__name__}: {error}") from error


def _plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str))


def differences(saved: Mapping[str, Value], now: Config) -> list[str]:
    """What differs between a run as it was saved and as it is asked for, free settings left out: one line for each."""
    current = asdict(now)
    return [
        f"{name}: saved {saved.get(name, '(nothing)')!r}, now {current.get(name, '(nothing)')!r}"
        for name in {**saved, **current}
        if name not in free(now) and saved.get(name) != current.get(name)
    ]
