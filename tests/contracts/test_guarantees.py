"""The page of guarantees names tests that are there, and each guarantee has some."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "migration-guarantees.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|") and "::" in line]


def defined_in(path: Path) -> set[str]:
    """The tests that a module defines, skipped ones left out."""
    found = (node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef))
    return {node.name for node in found if node.name.startswith("test_")}


def test_every_guarantee_is_there() -> None:
    numbered = [int(found[1]) for row in ROWS if (found := re.match(r"\| \*\*(\d+)\. ", row))]
    assert numbered == list(range(1, 10))
    assert len(ROWS) > len(numbered)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row.split("|")[1])[:40].strip("-"))
def test_its_tests_are_there(row: str) -> None:
    named = TEST.findall(row)
    assert len(named) == row.count("::")
    missing = [f"{path}::{name}" for path, name in named if name not in defined_in(ROOT / path)]
    assert missing == []
