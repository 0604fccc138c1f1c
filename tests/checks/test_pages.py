"""Every rule has a whole page, a code of its own and a name that people and scripts can ask for."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

from ckpttool import checks
from ckpttool.checks import rule, rule_of, rules
from ckpttool.cli.group import COMMANDS as NAMES
from ckpttool.rules import SECTIONS, check_page

RULES = list(rules().values())

# What exists to be run: a remedy that names anything else sends people nowhere.
COMMANDS = frozenset(NAMES)
FAMILIES = range(1, 9)

PAGE = "Something was found.\n\nWhat: a\n\nWhy: b\n\nCause: c\n\nRemedy: d\n"


@pytest.mark.parametrize("found", RULES, ids=lambda r: r.code)
def test_a_page_has_a_first_line_and_four_parts_in_order(found):
    blocks = found.page.strip().split("\n\n")
    assert re.fullmatch(r"[A-Z0-9].*\.", blocks[0]), "the first line is a sentence"
    assert "\n" not in blocks[0]
    assert [block.partition(": ")[0] for block in blocks[1:]] == list(SECTIONS)
    assert all(len(block) > 40 for block in blocks[1:]), "a part says something"


@pytest.mark.parametrize("found", RULES, ids=lambda r: r.code)
def test_a_page_gives_no_dangerous_and_no_empty_advice(found):
    assert "weights_only=False" not in found.page
    assert "!" not in re.sub(r"`[^`]*`", "", found.page)
    assert set(re.findall(r"ckpttool ([a-z]+)`?", found.page.partition("\n\nRemedy: ")[2])) <= COMMANDS | {
        "reads", "has", "and", "does", "cannot",
    }  # fmt: skip
    assert set(re.findall(r"`ckpttool ([a-z]+)", found.page)) <= COMMANDS


@pytest.mark.parametrize("found", RULES, ids=lambda r: r.code)
def test_a_rule_is_found_by_code_and_by_name(found):
    assert re.fullmatch(r"CK\d{3}", found.code)
    assert int(found.code[2]) in FAMILIES
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found.name)
    assert rule_of(found.code) is found
    assert rule_of(f" {found.code.lower()} ") is found
    assert rule_of(found.name.upper()) is found


@pytest.mark.parametrize("found", RULES, ids=lambda r: r.code)
def test_only_errors_say_something_about_the_file_as_a_whole(found):
    assert found.severity == "error" or found.axis == "none"


def test_codes_and_names_are_unique_and_in_order():
    codes = [found.code for found in RULES]
    assert codes == sorted(set(codes))
    assert len({found.name for found in RULES}) == len(RULES)


def test_a_module_holds_the_one_rule_that_it_is_named_after():
    modules = {m.name for m in pkgutil.iter_modules(checks.__path__) if not m.name.startswith("_")}
    assert modules == {found.name.replace("-", "_") for found in RULES}
    for found in RULES:
        module = importlib.import_module(f"ckpttool.checks.{found.name.replace('-', '_')}")
        assert module.__doc__ == found.page


def test_pages_name_only_rules_that_exist():
    written = {name for found in RULES for name in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", found.page)}
    assert written <= {found.name for found in RULES} | {"unsafe-global", "crc-mismatch"}


def test_an_unknown_rule_is_none():
    assert rule_of("CK999") is None
    assert rule_of("") is None


@pytest.mark.parametrize("part", SECTIONS)
def test_a_page_without_one_part_is_refused(part):
    check_page(PAGE)
    with pytest.raises(ValueError, match=part):
        check_page(PAGE.replace(f"{part}: ", ""))


def test_a_code_or_name_taken_twice_is_refused():
    taken = RULES[0]
    with pytest.raises(ValueError, match="twice"):
        rule(PAGE, taken.code, "another-name", "info")
    with pytest.raises(ValueError, match="twice"):
        rule(PAGE, "CK999", taken.name, "info")
