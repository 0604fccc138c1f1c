"""save, seal and latest against what a user would otherwise run."""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import pytest

from ckpttool.testing.samples import run_files, training_state
from ckpttool.testing.writers import torch_file

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

LARGE = (122, 4 << 20)  # 2 GB
TOOL = [sys.executable, "-m", "ckpttool"]


@pytest.mark.parametrize(("numel", "runs"), [(100_000, 41), (5_000_000, 9)], ids=["20 MB", "1 GB"])
def test_save(tmp_path: Path, rows, numel: int, runs: int) -> None:
    """Beside ``torch.save`` and ``fsync`` of a new file, in turn, on the disk of the temporary folder."""
    import torch

    import ckpttool

    state = {f"layer{number}": torch.randn(numel) for number in range(50)}

    def plain(path: Path) -> None:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    times: dict[str, list[float]] = {"mine": [], "plain": []}
    ways = {"mine": lambda path: ckpttool.save(state, path), "plain": plain}
    for turn in range(runs + 1):
        for name in sorted(ways, reverse=bool(turn % 2)):
            os.sync()
            start = time.perf_counter()
            ways[name](tmp_path / "a.pth")
            times[name].append(time.perf_counter() - start)
            for path in tmp_path.iterdir():
                path.unlink()
    mine, theirs = (statistics.median(times[name][1:]) for name in ("mine", "plain"))
    row = f"{mine:.3f} s", f"{theirs:.3f} s (`torch.save`, `fsync`)", f"{theirs / mine:.1f} ×"
    rows.append((f"save, {numel * 200 / 1e6:,.0f} MB, with digests and manifest", *row))
    assert mine < 1.1 * theirs


@pytest.mark.parametrize("layout", ["files", "folders"])
def test_latest_of_a_thousand(tmp_path: Path, versus, rows, layout) -> None:
    """Beside ``import torch``, which a script pays before it can even look."""
    if layout == "files":
        data = torch_file(training_state())
        for step in range(1000):
            (tmp_path / f"step-{step}.pth").write_bytes(data)
    else:
        for step in range(1000):
            (tmp_path / f"checkpoint-{step}").mkdir()
            for name, data in run_files().items():
                (tmp_path / f"checkpoint-{step}" / name).write_bytes(data)
    mine, theirs = versus([*TOOL, "latest", str(tmp_path)], [sys.executable, "-c", "import torch"], runs=7)
    rows.append(
        (f"latest of 1,000 {layout}", f"{mine:.2f} s", f"{theirs:.2f} s (`import torch`)", f"{theirs / mine:.1f} ×")
    )
    assert mine < 1.0


def test_seal_two_gigabytes(saved, versus, rows) -> None:
    path = str(saved(*LARGE))
    mine, theirs = versus([*TOOL, "seal", path], ["sh", "-c", 'cat "$0" > /dev/null', path])
    rows.append(("seal, 2 GB", f"{mine:.2f} s", f"{theirs:.2f} s (`cat`)", f"{theirs / mine:.1f} ×"))
    assert mine < 4 * theirs
