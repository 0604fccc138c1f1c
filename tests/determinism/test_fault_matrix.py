"""The page of faults and verdicts: every fault is on it and caught; a few are run again here, all by its script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from ckpttool.trainer.faults import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "fault-matrix.md"
AGAIN = ("epoch-lost", "augmentation-reseeded", "moments-permuted", "best-lost", "rng-drawn", "control digits")


def rows() -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    found = [[cell.strip() for cell in cells] for cells in lines if len(cells) == 8]
    return {cells[0].strip("`"): cells[1:] for cells in found if cells[0] not in ("fault", "---")}


def test_every_fault_is_on_the_page_and_caught() -> None:
    found = rows()
    assert set(FAULTS) <= set(found)
    assert [name for name in FAULTS if found[name][2] == "exact"] == []
    assert {found[name][2] for name in found if name.startswith("none, ")} == {"exact"}


@pytest.mark.slow
def test_the_page_is_what_the_check_says() -> None:
    command = [sys.executable, str(ROOT / "docs" / "fault_matrix.py"), "--check", *AGAIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
