"""The top of the repository stays small: what a newcomer sees first has been chosen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {"CHANGELOG.md", "LICENSE", "README.md", "ckpttool", "docs", "fixtures", "pyproject.toml", "tests", "tox.ini"}


def tracked() -> list[str]:
    """Every path that git tracks, relative to the top."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: nothing says what is tracked")
    # The checkout may belong to another user than the one who runs the tests (containers): that is fine here.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_only_chosen_names_at_the_top() -> None:
    tops = {path.split("/", 1)[0] for path in tracked()}
    assert {top for top in tops if not top.startswith(".")} <= ALLOWED


def test_nothing_tracked_is_ignored_or_generated() -> None:
    litter = ("__pycache__/", ".egg-info/", "docs/_build/")
    assert [path for path in tracked() if any(part in path for part in litter)] == []
