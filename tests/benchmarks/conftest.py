"""What benchmarks share: large files, commands timed side by side, and the table in the docs."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"

Row = tuple[str, str, str, str]


@pytest.fixture(scope="session")
def rows() -> Iterator[list[Row]]:
    """Rows of the table: work, ckpttool, the other way, ratio. Printed and written at the end."""
    found: list[Row] = []
    yield found
    if found:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        measured, _, after = rest.partition(END)
        table = _table(_merged(measured, found))
        print("\n" + table)
        DOCS.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}", encoding="utf-8")


def _merged(text: str, found: list[Row]) -> list[Row]:
    """The rows of a table, those that were measured again in the place of the old ones, new ones at the end."""
    lines = (line for line in text.splitlines() if line.startswith("| "))
    cells = (tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines)
    # What something is compared with is part of what was measured.
    fresh = {(row[0], _against(row)): row for row in found}
    rows = [row for row in cells if len(row) == 4 and row[0] != "work" and not row[0].startswith("---")]
    kept = [fresh.pop((row[0], _against(row)), row) for row in rows]
    return [(a, b, c, d) for a, b, c, d in (*kept, *fresh.values())]


def _against(row: tuple[str, ...]) -> str:
    return row[2].partition("(")[2]


def _table(rows: list[Row]) -> str:
    head = [("work", "ckpttool", "instead", "ratio"), ("---", "---:", "---:", "---:")]
    lines = [f"| {' | '.join(row)} |" for row in [*head, *rows]]
    machine = f"{_processor()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    return f"Measured on: {machine}. Medians; files in the page cache.\n\n" + "\n".join(lines) + "\n"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@pytest.fixture(scope="session")
def versus() -> Callable[..., tuple[float, float]]:
    """Time two commands in turn and give the medians in seconds: ``versus(mine, other, runs=5)``."""

    def run(mine: list[str], other: list[str], runs: int = 5) -> tuple[float, float]:
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs + 1):
            for command, kept in zip((mine, other), times, strict=True):
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                kept.append(time.perf_counter() - start)
        # The first round warms the page cache and compiles modules.
        return statistics.median(times[0][1:]), statistics.median(times[1][1:])

    return run


@pytest.fixture(scope="session")
def peak() -> Callable[[list[str]], int]:
    """A command's peak resident memory in bytes."""

    def run(command: list[str]) -> int:
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)

    return run


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """A state dict of so many float32 tensors of so many elements, saved by torch in a process of its own."""
    folder = tmp_path_factory.mktemp("saved")

    def make(tensors: int, numel: int) -> Path:
        path = folder / f"{tensors}x{numel}.pth"
        if not path.exists():
            code = (
                "import sys, torch; tensors, numel = map(int, sys.argv[2:]);"
                "torch.save({f'layers.{i}.weight': torch.randn(numel) * 0.02 for i in range(tensors)}, sys.argv[1])"
            )
            subprocess.run([sys.executable, "-c", code, str(path), str(tensors), str(numel)], check=True)
        return path

    return make
