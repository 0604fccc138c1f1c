"""The page of faults and verdicts: every fault is on it and caught; a few are run again here, all by its script."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from ckpttool.trainer.faults import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "fault-matrix.md"
AGAIN = (
    "epoch-lost",
    "stale-workers",
    "moments-half",
    "best-lost",
    "rng-drawn",
    "world-size-changed",
    "control digits",
)


def rows(columns: int = 8) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    found = [[cell.strip() for cell in cells] for cells in lines if len(cells) == columns]
    return {cells[0].strip("`"): cells[1:] for cells in found if cells[0] not in ("fault", "---")}


def test_every_fault_is_on_the_page_and_caught() -> None:
    found = rows()
    assert set(FAULTS) <= set(found)
    assert [name for name in FAULTS if found[name][2] == "exact"] == []
    assert {found[name][2] for name in found if name.startswith("none, ")} == {"exact"}


def test_what_is_not_the_same_is_not_called_the_same() -> None:
    """Faults that stand for different things differ in the cause that is named, or in what is said of it."""
    said = {name: (found[4], rows(2)[name][0]) for name, found in rows().items() if name in FAULTS}
    names = [name for name in said if said[name][0] != "–"]  # the others have no cause: nothing is said of their resume
    same = [(a, b) for a, b in combinations(names, 2) if said[a] == said[b]]
    assert [pair for pair in same if not set.intersection(*(set(FAULTS[n].causes.split()) for n in pair))] == []
    assert len(names) > 50


def test_the_page_counts_faults_and_not_controls() -> None:
    assert f"{len(FAULTS)} of {len(FAULTS)} faults are caught" in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_is_what_the_check_says() -> None:
    command = [sys.executable, str(ROOT / "docs" / "fault_matrix.py"), "--check", *AGAIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
