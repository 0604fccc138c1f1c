"""Trainers in real processes, killed for real, and what is compared of two runs."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import ckpttool

ZYGOTE = Path(__file__).with_name("zygote.py")

Start: TypeAlias = Callable[..., int]


@dataclass(frozen=True)
class Ended:
    """How a trainer's process ended: its exit status, negative for a signal, and what it printed."""

    status: int
    text: str


class Trainers:
    """Starts trainers, and waits for them."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server, self.folder = server, folder
        self.outputs: dict[int, Path] = {}

    def _ask(self, **order: Any) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(order), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def start(self, out: Path, *options: str | int | float, **strike: Any) -> int:
        """Start one; its process id."""
        output = self.folder / f"{len(self.outputs)}.txt"
        argv = ["--out", str(out), *map(str, options)]
        pid = self._ask(argv=argv, output=str(output), **strike)
        self.outputs[pid] = output
        return pid

    def wait(self, pid: int) -> Ended:
        """How it ended."""
        status = self._ask(wait=pid)
        return Ended(status, self.outputs[pid].read_text())

    def together(
        self, world: int, out: Path, *options: str | int | float, struck: int = 0, **strike: Any
    ) -> list[Ended]:
        """Run as many that work together, as ``torchrun`` starts them, one of them struck, to the end of all."""
        pids = self.start_together(world, out, *options, struck=struck, **strike)
        return [self.wait(pid) for pid in pids]

    def start_together(
        self, world: int, out: Path, *options: str | int | float, struck: int = 0, **strike: Any
    ) -> list[int]:
        """Start them; their process ids, by rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
        return [
            self.start(out, *options, env={**known, "RANK": str(rank)}, **(strike if rank == struck else {}))
            for rank in range(world)
        ]

    def __call__(self, out: Path, *options: str | int | float, **strike: Any) -> Ended:
        """Run one to its end."""
        return self.wait(self.start(out, *options, **strike))


@pytest.fixture(scope="session")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    pytest.importorskip("torch", reason="torch is not installed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-c", ZYGOTE.read_text()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server:
        yield Trainers(server, tmp_path_factory.mktemp("output"))
        assert server.stdin is not None
        server.stdin.close()


@dataclass(frozen=True)
class Outcome:
    """All that has to be the same: every number of the log, and the digests of the last checkpoint's parts."""

    rows: tuple[tuple[tuple[str, str], ...], ...]
    step: int
    digests: dict[str, str]


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], Outcome]:
    """What a run has come to."""

    def read(folder: Path) -> Outcome:
        with (folder / "log.csv").open(newline="") as file:
            rows = tuple(tuple(row.items()) for row in csv.DictReader(file))
        with ckpttool.CheckpointStore(folder, readonly=True) as store:
            found = store.load_latest()
        assert found is not None
        state = found.state
        if state is None:  # a folder of pieces
            from torch import nn

            from ckpttool.trainer.shards import load_shards

            state = load_shards(found.path, nn.Identity())
        return Outcome(rows, found.step, state["digests"])

    return read


@pytest.fixture
def environment_put_back() -> Iterator[None]:
    """A training in the test's own process sets threads and kernels for all that comes after it."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.backends.mkldnn.enabled = True
    torch.use_deterministic_algorithms(False)
