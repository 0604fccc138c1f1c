"""diff against what a user would otherwise run: ``cmp``, and a loop over what torch loads."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

LARGE = (122, 4 << 20)  # 2 GB
DIFF = [sys.executable, "-m", "ckpttool", "diff"]

LOOP = """
import sys, torch
a, b = (torch.load(path, weights_only=True) for path in sys.argv[1:])
for key, x in a.items():
    y = b[key]
    if not torch.equal(x, y):
        (x - y).abs().max().item()
        torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0).item()
"""

CHANGE = """
import sys, torch
state = torch.load(sys.argv[1], weights_only=True)
torch.save({key: value + 1e-4 * torch.randn_like(value) for key, value in state.items()}, sys.argv[2])
"""


def row(work: str, other: str, mine: float, theirs: float) -> tuple[str, str, str, str]:
    return work, f"{mine:.2f} s", f"{theirs:.2f} s ({other})", f"{theirs / mine:.1f} ×"


@pytest.fixture(scope="module")
def twin(saved):
    """A file and its byte-for-byte copy."""

    def make(tensors: int, numel: int) -> tuple[str, str]:
        path: Path = saved(tensors, numel)
        copy = path.with_suffix(".copy.pth")
        if not copy.exists():
            shutil.copyfile(path, copy)
        return str(path), str(copy)

    return make


@pytest.fixture(scope="module")
def changed(saved):
    """A file and one in which every element is another."""

    def make(tensors: int, numel: int) -> tuple[str, str]:
        path: Path = saved(tensors, numel)
        other = path.with_suffix(".changed.pth")
        if not other.exists():
            subprocess.run([sys.executable, "-c", CHANGE, str(path), str(other)], check=True)
        return str(path), str(other)

    return make


def differing(*command: str) -> list[str]:
    """Exit status 1 says that they differ, which is no failure here."""
    code = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode not in (0, 1))"
    return [sys.executable, "-c", code, *command]


def test_equal_files(twin, versus, rows) -> None:
    a, b = twin(*LARGE)
    mine, theirs = versus([*DIFF, a, b], ["cmp", a, b])
    rows.append(row("diff, equal, 2 × 2 GB", "`cmp`", mine, theirs))
    assert mine < theirs / 1.5


def test_every_element_differs(changed, versus, rows) -> None:
    a, b = changed(*LARGE)
    mine, theirs = versus(differing(*DIFF, a, b), [sys.executable, "-c", LOOP, a, b], runs=3)
    rows.append(row("diff, all different, 2 × 2 GB", "`torch.load`, equal, max, cosine", mine, theirs))
    assert mine < theirs / 5


def test_memory(changed, peak, rows) -> None:
    a, b = changed(*LARGE)
    mine, theirs = peak(differing(*DIFF, a, b)), peak([sys.executable, "-c", LOOP, a, b])
    rows.append(
        ("peak memory of diff, 2 × 2 GB", f"{mine / 1e6:.0f} MB", f"{theirs / 1e6:.0f} MB (`torch.load`)",
         f"{theirs / mine:.1f} ×")
    )  # fmt: skip
    assert mine < 250e6


@pytest.mark.parametrize("shape", [LARGE, (100, 16)])
def test_quick(twin, rows, shape) -> None:
    a, b = twin(*shape)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run([*DIFF, "--quick", a, b], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    least = sorted(times)[len(times) // 2]
    rows.append((f"diff --quick, {shape[0]} tensors of {shape[1]}", f"{least:.2f} s", "", ""))
    assert least < 0.3


def test_time_grows_no_faster_than_the_tensors(changed, versus, rows) -> None:
    less, more = (differing(*DIFF, *changed(tensors, 16)) for tensors in (50_000, 100_000))
    half, whole = versus(less, more, runs=3)
    rows.append(("diff, twice the tensors", f"{whole:.2f} s", f"{half:.2f} s (half of them)", f"{whole / half:.1f} ×"))
    assert whole < 3 * half
