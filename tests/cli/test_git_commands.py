"""The commands that git runs, and the one that makes it run them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from ckpttool.errors import ExitCode, Unreadable
from ckpttool.report import Report, Text

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Puts a small comparison in place of the real one; what it was asked."""
    asked: list[tuple[str, str]] = []

    def diff(a: str, b: str, **_: Any) -> Report:
        asked.append((a, b))
        return Report("diff", {}, (Text(f"{a} → {b}", "title"), Text("1 tensor rewritten")), ExitCode.FINDINGS)

    monkeypatch.setattr("ckpttool.verbs.diff.diff", diff)
    return asked


def test_textconv_prints_lines(run: Run, tiny: Path) -> None:
    result = run("textconv", tiny)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, third, *_ = result.stdout.splitlines()
    assert first == "format: safetensors"
    assert second.startswith("layers.0.weight  float32 [2]  xxh3:")
    assert third.startswith("layers.1.weight  float32 [2]  xxh3:")


def test_textconv_of_nothing_is_an_error(run: Run) -> None:
    result = run("textconv", "gone.pth")
    assert result.exit_code == 2
    assert result.stderr == "error: gone.pth – no such file or directory\n"


def test_git_setup_says_what_it_wrote(run: Run) -> None:
    assert run("git-setup").exit_code == 2
    subprocess.run(["git", "init", "-q"], check=True)
    dry = run("git-setup", "--dry-run", "--pattern", "*.pth")
    assert "would be written" in dry.stdout
    assert "*.pth diff=ckpttool" in dry.stdout
    assert not Path(".gitattributes").exists()
    data = json.loads(run("git-setup", "--pattern", "*.pth", "--external", "--json").stdout)
    assert (data["schema"], data["lines"]) == ("ckpttool.git-setup/1", ["*.pth diff=ckpttool"])
    assert data["settings"]["diff.ckpttool.command"].endswith(" git-diff")
    assert "nothing to do" in run("git-setup", "--pattern", "*.pth", "--external").stdout


def test_the_driver_shows_the_comparison_under_gits_names(
    run: Run, tiny: Path, compared: list[tuple[str, str]]
) -> None:
    shutil.copy(tiny, "m.pth")
    result = run("git-diff", "m.pth", tiny, "0" * 40, "100644", "m.pth", "1" * 40, "100644")
    assert result.exit_code == 0, "git dies of any other"
    assert compared == [(str(tiny), "m.pth")]
    assert result.stdout == "ckpttool diff a/m.pth b/m.pth\na/m.pth → b/m.pth\n1 tensor rewritten\n"


def test_the_driver_shows_added_and_removed_files(run: Run, tiny: Path) -> None:
    added = run("git-diff", "m.pth", "/dev/null", ".", ".", tiny, "1" * 40, "100644").stdout
    assert "\n+format: safetensors\n+layers.0.weight" in added
    removed = run("git-diff", "m.pth", tiny, "1" * 40, "100644", "/dev/null", ".", ".").stdout
    assert "\n-format: safetensors\n" in removed
    assert run("git-diff", "m.pth").stdout == "unmerged: m.pth\n"
    assert run("git-diff", "a", "b").exit_code == 2


def test_the_driver_survives_what_cannot_be_compared(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diff(a: str, b: str) -> Report:
        raise Unreadable(a, "gone")

    monkeypatch.setattr("ckpttool.verbs.diff.diff", diff)
    result = run("git-diff", "m.pth", tiny, "0", "100644", tiny, "1", "100644", "new.pth", "similarity index 90%")
    assert result.exit_code == 0
    assert "gone" in result.stdout
