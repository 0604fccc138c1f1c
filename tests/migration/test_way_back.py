"""A plan says what the way back would not give, and nothing where it gives all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.migrate import migrate

RENAMED = 'ckpttool: 1\nrules:\n- rename: "a.{x...}"\n  to: "c.{x...}"\n'


def way_back(folder: Path, *names: str) -> list[tuple[list[str], list[str]]]:
    source, rules = folder / "a.pth", folder / "rules.yaml"
    source.write_bytes(torch_file({name: tensor((2,), bytes([i]) * 8) for i, name in enumerate(names)}))
    rules.write_text(RENAMED)
    plan: Any = migrate(source, rules=rules, dry_run=True).json["plan"]
    assert all(step["lossy"] for step in plan if step["op"] == "way-back")
    return [(step["from"], step["to"]) for step in plan if step["op"] == "way-back"]


@pytest.mark.parametrize("names", [("a.w",), ("a.w", "b.w"), ("b.w", "a.x.w", "a.w")])
def test_nothing_is_said_where_all_comes_back(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert way_back(tmp_path, *names) == []


def test_names_that_were_there_before_would_be_renamed_too(tmp_path: Path) -> None:
    """``c.b`` has the name that rules give; going back, they cannot tell that it always had."""
    assert way_back(tmp_path, "a.w", "c.b") == [(["c.b"], []), ([], ["a.b"])]
