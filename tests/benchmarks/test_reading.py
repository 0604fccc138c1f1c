"""inspect and verify against what a user would otherwise run. ``tox -e bench`` writes docs/performance.md."""

from __future__ import annotations

import sys

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

GB = 1e9
LARGE = (122, 4 << 20)  # 2 GB
TOOL = [sys.executable, "-m", "ckpttool"]


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


def load(path: str, how: str = "") -> list[str]:
    return python(f"import sys, torch; torch.load(sys.argv[1], weights_only=True{how})", path)


def row(work: str, other: str, mine: float, theirs: float) -> tuple[str, str, str, str]:
    return work, f"{mine:.2f} s", f"{theirs:.2f} s ({other})", f"{theirs / mine:.1f} ×"


@pytest.mark.parametrize("other", ["zipfile -t", "torch.load", "cat"])
def test_verify_two_gigabytes(saved, versus, rows, other) -> None:
    path = str(saved(*LARGE))
    commands = {
        "zipfile -t": [sys.executable, "-m", "zipfile", "-t", path],
        "torch.load": load(path),
        "cat": ["sh", "-c", 'cat "$0" > /dev/null', path],
    }
    mine, theirs = versus([*TOOL, "verify", path], commands[other])
    rows.append(row("verify, 2 GB", f"`{other}`", mine, theirs))
    assert mine < 12 * theirs if other == "cat" else mine < 2 * theirs


def test_inspect_two_gigabytes(saved, versus, rows) -> None:
    path = str(saved(*LARGE))
    mine, theirs = versus([*TOOL, "inspect", path], load(path, ", mmap=True"))
    rows.append(row("inspect, 2 GB", "`torch.load(mmap=True)`", mine, theirs))
    assert mine < theirs


def test_inspect_a_hundred_thousand_tensors(saved, versus, rows) -> None:
    path = str(saved(100_000, 16))
    mine, theirs = versus([*TOOL, "inspect", path], load(path, ", mmap=True"), runs=3)
    rows.append(row("inspect, 100 000 tensors", "`torch.load(mmap=True)`", mine, theirs))


def test_verify_a_hundred_thousand_tensors(saved, versus, rows) -> None:
    path = str(saved(100_000, 16))
    mine, theirs = versus([*TOOL, "verify", path], load(path), runs=3)
    rows.append(row("verify, 100 000 tensors", "`torch.load`", mine, theirs))


def test_start_up(versus, rows) -> None:
    mine, theirs = versus([*TOOL, "--version"], python("import torch"))
    rows.append(row("start", "`import torch`", mine, theirs))
    assert mine < theirs / 2


def test_memory_does_not_grow_with_bytes(saved, peak, rows) -> None:
    large, small = str(saved(*LARGE)), str(saved(122, 4 << 10))
    most, least = peak([*TOOL, "verify", large]), peak([*TOOL, "verify", small])
    loaded = peak(load(large))
    rows.append(
        ("peak memory of verify, 2 GB", f"{most / 1e6:.0f} MB", f"{loaded / 1e6:.0f} MB (`torch.load`)",
         f"{loaded / most:.1f} ×")
    )  # fmt: skip
    assert most < least + 50e6
    assert most < 200e6


@pytest.mark.parametrize(
    ("work", "small", "large"), [("bytes", (61, 4 << 20), LARGE), ("tensors", (50_000, 16), (100_000, 16))]
)
def test_time_grows_no_faster_than_the_file(saved, versus, rows, work, small, large) -> None:
    less, more = versus([*TOOL, "verify", str(saved(*small))], [*TOOL, "verify", str(saved(*large))], runs=3)
    rows.append((f"verify, twice the {work}", f"{more:.2f} s", f"{less:.2f} s (half of them)", f"{more / less:.1f} ×"))
    assert more < 3 * less
