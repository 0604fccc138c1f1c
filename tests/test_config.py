"""Configuration is found upward, checked, and mild about files that are none of its business."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpttool.config import Config, find_config, load_config
from ckpttool.errors import UsageError

FULL = """
ignore-codes = ["CK602"]
trust = ["my.Config"]
fail-on = "warning"
require = "resumable"
"""


def test_nothing_anywhere_is_an_empty_configuration(tmp_path: Path) -> None:
    assert find_config(tmp_path) == Config()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ckpttool.toml", FULL),
        ("ckpttool.toml", "[tool.ckpttool]" + FULL),
        ("pyproject.toml", "[project]\nname = 'x'\n[tool.ckpttool]" + FULL),
    ],
)
def test_found_from_a_folder_below(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    below = tmp_path / "runs" / "today"
    below.mkdir(parents=True)
    assert find_config(below) == Config(tmp_path / name, ("CK602",), ("my.Config",), "warning", "resumable")


def test_the_nearest_decides_and_a_pyproject_without_our_table_is_passed(tmp_path: Path) -> None:
    (tmp_path / "ckpttool.toml").write_text("require = 'exact'")
    below = tmp_path / "package"
    below.mkdir()
    (below / "pyproject.toml").write_text("[project]\nname = 'x'")
    assert find_config(below).require == "exact"
    (below / "ckpttool.toml").write_text("require = 'weights'")
    assert find_config(below).require == "weights"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fail_on = 'error'", "no key is called 'fail_on'; did you mean 'fail-on'"),
        ("colour = 1", "no key is called 'colour': there are"),
        ("fail-on = 'fatal'", "fail-on is 'fatal': it can be error, warning, info, never"),
        ("require = 3", "require is 3"),
        ("trust = 'my.Config'", "trust is not a list of strings"),
        ("trust = [1]", "trust is not a list of strings"),
        ("trust = [", "not valid TOML"),
        ("tool.ckpttool = 1", "tool.ckpttool is not a table"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "ckpttool.toml").write_text(text)
    with pytest.raises(UsageError, match=complaint):
        find_config(tmp_path)


def test_a_broken_pyproject_of_others_is_passed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert find_config(tmp_path) == Config()
    (tmp_path / "pyproject.toml").write_text("[tool.ckpttool]\ntrust = [\n")
    with pytest.raises(UsageError, match="not valid TOML"):
        find_config(tmp_path)


def test_a_named_file_must_have_one(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]")
    with pytest.raises(UsageError, match=r"no such file, or it has no \[tool.ckpttool\]"):
        load_config(tmp_path / "pyproject.toml")
    with pytest.raises(UsageError, match="no such file"):
        load_config(tmp_path / "absent.toml")
