"""fixtures/damaged is what the faults make of the sound fixtures, and each file is called what it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ckpttool.testing.faults import FAULTS
from ckpttool.verbs.verify import verify

DAMAGED = Path(__file__).parents[2] / "fixtures" / "damaged"
FILES = sorted(p.name for p in DAMAGED.glob("*") if p.name != "README.md")


def test_there_are_damaged_fixtures_and_they_are_fresh(fixtures_dir: Path) -> None:
    assert FILES
    command = [sys.executable, str(fixtures_dir / "make_damaged.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_fixture_is_called_what_it_is(name: str) -> None:
    fault = FAULTS[name.split(".")[1]]
    targets: Any = verify([DAMAGED / name]).json["targets"]
    assert fault.rule in [finding["name"] for finding in targets[0]["findings"]]


def test_the_table_names_every_file() -> None:
    rows = re.findall(r"^\| `(.+?)` \|", (DAMAGED / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == FILES
