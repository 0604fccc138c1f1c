"""The page about rules shows rules that are read, and every kind and key of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckpttool.migration import load
from ckpttool.migration.guards import KEYS as GUARDS
from ckpttool.migration.inverse_contents import UNDO_CONTENT
from ckpttool.migration.rule_file import KEYS
from ckpttool.migration.vocabulary import COMMON, KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "migration-rules.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
GIVEN = "ckpttool: 1\ngiven: {n_heads: 8, alpha: 16, rank: 8}\nrules:\n"


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_are_read(text: str) -> None:
    assert load(text if text.startswith("ckpttool") else GIVEN + text, "page.yaml").version == 1


def test_every_kind_has_an_example() -> None:
    shown = {
        rule.kind
        for text in EXAMPLES
        for rule in load(text if text.startswith("ckpttool") else GIVEN + text, "page.yaml").rules
    }
    assert shown == KINDS.keys()


def test_every_key_is_named() -> None:
    fields = {field.name for kind in KINDS.values() for field in kind.fields}
    missing = [word for word in {*fields, *KEYS, *GUARDS, *COMMON} if not re.search(rf"\b{word}\b", PAGE)]
    assert missing == []


def test_the_table_of_ways_back_is_complete() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.partition("## The way back")[2], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == KINDS.keys()
    lost = set(re.findall(r"`(\w+)`", rows[-1]))
    assert lost & (UNDO_CONTENT.keys() - {"slice"}) == set()
