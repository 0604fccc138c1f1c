"""Faults of kernels, environment and checkpoints."""

from __future__ import annotations

import os
import sys

import torch

from ckpttool import CheckpointStore
from ckpttool.trainer.distributed import world
from ckpttool.trainer.faults.registry import fault, need
from ckpttool.trainer.state import TrainState, seed_everything

GOES_ON = "CKPTTOOL_TRAINER_GOES_ON"
"""The environment variable that tells a process that it has taken the place of another one."""


@fault("threads", "K1", "gradients", "depends")
def _threads(state: TrainState) -> None:
    """Another number of threads adds in another order."""
    torch.set_num_threads(state.config.threads + 1)


@fault("mkldnn-off", "K2", "gradients", "depends")
def _mkldnn(state: TrainState) -> None:
    """Another library computes convolutions and matrix products."""
    torch.backends.mkldnn.enabled = False


@fault("compiled", "K4", "gradients", "+0")
def _compiled(state: TrainState) -> None:
    """The resumed process compiles the model: fused kernels round otherwise, and dropout draws in another way."""
    state.model.compile()


@fault("world-size-changed", "T1", "gradients", "+0", "restart")
def _world_size_changed(_state: TrainState) -> None:
    """The run goes on in two processes of torchrun, which halve each batch: sums are formed in another order."""
    if os.environ.get(GOES_ON):
        return
    need(world() == 1 and "--out" in sys.argv, "command of one process (ckpttool train, without torchrun)")
    words = sys.argv[2:] if sys.argv[1] == "train" else sys.argv[1:]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ckpttool.trainer")
    os.environ[GOES_ON] = "1"
    os.execv(sys.executable, [sys.executable, *torchrun, *words, "--parallel", "ddp"])


@fault("unseeded", "K3", "rng", "+0", "start")
def _unseeded(state: TrainState) -> None:
    """Generators start from the clock: two uninterrupted runs differ already."""
    seed_everything(int.from_bytes(os.urandom(4), "little"))


@fault("torn-save", "C1", "nothing", "never", "saved")
def _torn_save(store: CheckpointStore) -> None:
    """The newest checkpoint loses its second half, as by a power cut without fsync: an older one is resumed."""
    path = store.steps()[-1][1]
    if path.is_dir():
        path = max(path.glob("*.distcp"), key=lambda file: file.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)


@fault("checkpoints-ignored", "C1", "counters", "+0", "instead of the resume")
def _checkpoints_ignored(state: TrainState) -> None:
    """The checkpoint is not found: the run starts again from step 0."""
