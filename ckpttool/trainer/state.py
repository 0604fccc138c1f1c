"""What a checkpoint holds: every part that a resume needs, captured and restored in one place."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ckpttool import UsageError, digest_of, environment
from ckpttool.trainer.config import Config
from ckpttool.trainer.data import Position, mixed
from ckpttool.trainer.distributed import gathered, pieces, rank, whole
from ckpttool.trainer.optim import Average, State, load_named_state, named_state

PARTS = "model optimizer scheduler scaler ema counters data global_step epoch training rng".split()
"""The parts whose digests are compared after a restore, in the order in which they are restored: generators last."""


@dataclass(slots=True)
class Counters:
    """How far a run has come."""

    step: int = 0  # optimizer steps done
    samples: int = 0  # samples seen, over all processes
    best: float | None = None  # metric of the best evaluation
    best_step: int = 0
    bad_evaluations: int = 0  # since the best one
    stopped: bool = False  # early stopping said so
    skipped: int = 0  # steps that were left out because a gradient overflowed
    average: float = 0.0  # of the loss, moving, for the log
    resumes: int = 0  # how often the run was resumed; no part of the trajectory


@dataclass(slots=True)
class TrainState:
    """Everything that changes while training, and nothing else."""

    config: Config
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    ema: Average | None
    counters: Counters
    position: Position
    fingerprint: str  # of the data

    def parts(self) -> State:
        """Every part that a resume needs, as plain containers, numbers and tensors: the live ones, not copies."""
        return {
            "model": self.model.state_dict(),
            "optimizer": named_state(self.optimizer, self.model),
            "scheduler": _plain_schedule(self.scheduler),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "counters": asdict(self.counters),
            "data": {**asdict(self.position), "fingerprint": self.fingerprint},
            "rng": gathered(generators()),  # by process
            "global_step": self.counters.step,
            "epoch": self.position.epoch,
            "training": self.model.training,
        }

    def capture(self, *, sharded: bool = False) -> State:
        """A checkpoint, all of which ``weights_only`` loading takes: the parts, what they belong to, their digests.

        Save it before the next step, or save a copy. Draws nothing from any generator. Tensors that are spread over
        processes come whole, or as each one's pieces if ``sharded``; the digests are those of whole ones.
        """
        parts = self.parts() if sharded else whole(self.parts())
        return {**parts, "config": asdict(self.config), "environment": environment(), "digests": digests(parts)}

    def restore(self, saved: State, *, pieced: bool = False) -> None:
        """Become what was captured; generators are restored last.

        Raises ``UsageError`` for a key too many or too few in any part, for what was changed since (unless it was
        ``pieced`` together, in another order), for other data, and for a part that came out other than it went in.
        """
        _same_keys(saved, {**self.parts(), "config": {}, "environment": {}, "digests": dict.fromkeys(PARTS)})
        if not pieced:
            _same_digests(digests(saved), saved["digests"], "changed since it was saved")
        if saved["data"]["fingerprint"] != self.fingerprint:
            raise UsageError("the data is not what this run was trained on so far; bring it back, or use another --out")
        self.model.load_state_dict(pieces(saved["model"], self.model))
        load_named_state(self.optimizer, self.model, saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(saved["ema"])
        self.counters = Counters(**saved["counters"])
        self.position = Position(saved["data"]["epoch"], saved["data"]["batch"])
        self.model.train(saved["training"])
        if rank() < len(saved["rng"]):
            restore_generators(saved["rng"][rank()])
        else:
            seed_everything(mixed(self.config.seed, rank(), self.counters.step))
        parts = self.parts()
        if len(parts["rng"]) != len(saved["rng"]):
            parts["rng"] = saved["rng"]  # as many as there are now were restored
        _same_digests(digests(parts), saved["digests"], "restored otherwise than it was saved")


class Boundary:
    """Where the last step ended, as far as a step that fails halfway moves on: ``undo`` goes back there.

    Weights, moments, schedule and average change at a step's very end alone, so they need no copy.
    """

    def __init__(self, state: TrainState) -> None:
        self.rng = generators()
        self.position, self.counters = state.position, replace(state.counters)
        self.buffers = [buffer.clone() for buffer in state.model.buffers()]

    @torch.no_grad()
    def undo(self, state: TrainState) -> None:
        """Take back what the micro-batches since then did."""
        for buffer, before in zip(state.model.buffers(), self.buffers, strict=True):
            buffer.copy_(before)
        state.position, state.counters = self.position, self.counters
        restore_generators(self.rng)


_ELSEWHERE = ("optimizer.state", "config", "environment")
"""What is checked by name or by its digest, or whose differences are told in another way."""


def _same_keys(saved: State, mine: State) -> None:
    """Raise ``UsageError`` naming the keys that only one of two states has."""
    there, here = _keys(saved), _keys(mine)
    for what, odd in (("lacks", here - there), ("has, and nobody reads,", there - here)):
        if top := sorted(name for name in odd if name.rpartition(".")[0] not in odd):
            raise UsageError(f"the checkpoint {what} {', '.join(top)}")


def _keys(tree: Any, where: str = "") -> set[str]:
    """The names of all places in nested containers; the items of a list share one."""
    items = tree.items() if isinstance(tree, dict) else [("*", item) for item in tree] if isinstance(tree, list) else ()
    below = () if where in _ELSEWHERE else (_keys(item, f"{where}.{key}".lstrip(".")) for key, item in items)
    return {where}.union(*below)


def _same_digests(found: dict[str, str], wanted: dict[str, str], what: str) -> None:
    """Raise ``UsageError`` naming the parts that differ."""
    if wrong := [part for part in PARTS if found[part] != wanted[part]]:
        raise UsageError(f"{what}: {', '.join(wrong)}; nothing was trained")


def _plain_schedule(scheduler: LRScheduler) -> State:
    """A schedule's state without what is code: bound methods are made anew, not loaded."""
    return {key: value for key, value in scheduler.state_dict().items() if not callable(value)}


def digests(parts: State) -> dict[str, str]:
    """One digest for each part, over names, types, shapes and bytes. ``resumes`` is left out: it counts them."""
    counters = {key: value for key, value in parts["counters"].items() if key != "resumes"}
    return {part: digest_of(whole(counters if part == "counters" else parts[part])) for part in PARTS}


# --- generators ------------------------------------------------------------------------------------------------


def seed_everything(seed: int) -> None:
    """Seed every global generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generators() -> State:
    """The states of all global generators, as plain data."""
    from_numpy: Any = np.random.get_state(legacy=False)
    words = torch.from_numpy(from_numpy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": {**from_numpy, "state": {**from_numpy["state"], "key": words}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(saved: State) -> None:
    """Put all global generators where they were."""
    random.setstate(saved["python"])
    words = saved["numpy"]["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**saved["numpy"], "state": {**saved["numpy"]["state"], "key": words}})
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
