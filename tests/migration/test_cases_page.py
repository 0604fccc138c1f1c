"""docs/reference/migration-cases.md speaks of every preset, and of tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckpttool.verbs.presets import presets

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "migration-cases.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "::" in line
]


def named(row: list[str]) -> str:
    return row[1].strip("`")


def test_every_preset_and_every_file_of_rules_is_a_case() -> None:
    files = {f"tests/migration/rules/{path.name}" for path in (ROOT / "tests/migration/rules").glob("*.yaml")}
    assert {named(row) for row in ROWS} == {preset.name for preset in presets()} | files


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_test_that_a_case_names_is_there_and_uses_it(row: list[str]) -> None:
    path, _, function = row[3].strip("`").partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(", text, re.MULTILINE)
    word = Path(named(row)).stem
    listed = path == "tests/migration/test_presets.py"
    assert listed or word in text or f'f"{word.partition("-")[0]}-{{' in text
