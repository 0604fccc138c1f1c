"""``ckpttool.save`` against ``torch.save`` and ``fsync``: the same promise of a file on the disk, and nothing else."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpttool

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
torch = pytest.importorskip("torch", reason="torch is not installed")

RATIO = 1.1


def training_state(nbytes: int, side: int) -> dict[str, Any]:
    """Square matrices with AdamW's moments for each."""
    count = nbytes // (3 * 4 * side * side)
    weights = {f"layers.{i}.weight": torch.randn(side, side) for i in range(count)}
    moments = {
        i: {
            "step": torch.tensor(1.0),
            "exp_avg": torch.randn(side, side),
            "exp_avg_sq": torch.rand(side, side),
        }
        for i in range(count)
    }
    groups = [{"lr": 1e-3, "params": list(range(count))}]
    return {"model": weights, "optimizer": {"state": moments, "param_groups": groups}, "step": 1}


def plain(state: object, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.parametrize(
    ("name", "nbytes", "side", "runs"), [("20 MB", 20 << 20, 256, 25), ("1 GB", 1 << 30, 1024, 5)]
)
def test_save(
    tmp_path: Path, rows: list[tuple[str, str, str, str]], name: str, nbytes: int, side: int, runs: int
) -> None:
    """In turn, each over its last file; the disk is at rest before each."""
    state = training_state(nbytes, side)
    store = ckpttool.CheckpointStore(tmp_path / "store", keep=1)
    ways: dict[str, Callable[[int], object]] = {
        "torch.save + fsync": lambda _: plain(state, tmp_path / "plain.pth"),
        "ckpttool.save": lambda _: ckpttool.save(state, tmp_path / "mine.pth"),
        "CheckpointStore.save": lambda step: store.save(state, step=step),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for step in range(runs + 1):
        for way, save in ways.items():
            os.sync()
            start = time.perf_counter()
            save(step)
            times[way].append(time.perf_counter() - start)
    found = {way: statistics.median(taken[1:]) for way, taken in times.items()}
    base = found.pop("torch.save + fsync")
    for way, taken in found.items():
        rows.append(
            (
                f"{way}, {name}",
                f"{taken:.3f} s",
                f"`torch.save` + `fsync` {base:.3f} s",
                f"{taken / base:.2f}",
            )
        )
    assert max(found.values()) <= RATIO * base, found
