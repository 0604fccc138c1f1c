"""Regular expressions whose time is bounded are taken, the others are refused before they meet a name."""

from __future__ import annotations

import re

import pytest

from ckpttool.migration import RuleError, load, rewrite
from ckpttool.migration.patterns import PatternFault
from ckpttool.migration.regexes import compiled
from ckpttool.rewriting import Named, Names


@pytest.mark.parametrize(
    "text",
    [
        r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$",
        r"^(?:\w+\.)*conv\d*$",
        r"(?:[^.]+\.){2,}weight",
        r"(?P<layer>h\.\d+)\.(?P=layer)",
        r"(?:module\.)*(.*)",
        r"(?:a|b)?.*x.*",
        r"[]ab]+[^]]*",
        r"\(a+\)",
        r"a{3}(b{2,4})*",
        r"(?=.*x)(?!y).+",
        r"(a)\1*",
    ],
)
def test_bounded_ones_are_taken(text: str) -> None:
    assert compiled(text).pattern == text


@pytest.mark.parametrize(
    "text",
    [
        r"(\w+)+x",
        r"(?:.*)*x",
        r"((a+)b?)*x",
        r"(a|a)*x",
        r"(?:a|ab|b)+x",
        r"(?:[\w.]+\.)*x",
        r"(a{1,30})*x",
        r"((?:ab)*)*x",
        r".*.*.*.*.*x",
        r"\S+[^ ]*.+.*.*x",
        r"(?P<a>a+)+x",
    ],
)
def test_endless_ones_are_refused(text: str) -> None:
    re.compile(text)
    with pytest.raises(PatternFault, match="may take for ever"):
        compiled(text)
    with pytest.raises(RuleError, match=r"rules\.yaml:3"):
        load(f"ckpttool: 1\nrules:\n- drop: {{regex: '{text}'}}\n", "rules.yaml")


def test_what_is_taken_ends_on_the_names_that_it_likes_least() -> None:
    rules = load(
        "ckpttool: 1\nrules:\n- drop: {regex: '(?:\\w+\\.)*conv'}\n- drop: {regex: '.*a.*a.*b'}\n", "rules.yaml"
    )
    names = Names((Named("x." * 100 + "y", None), Named("a" * 200, None)))
    assert [output.name for output in rewrite(rules, names).outputs] == [one.name for one in names.items]
