"""Text fits its columns, shows everything, and never lets a name act on the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from ckpttool.model import Finding
from ckpttool.render import render
from ckpttool.render.columns import cells, wrap
from ckpttool.report import Bars, Findings, Report, Table, Text, Tree

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_asked(report: Report, width: int) -> None:
    assert max(map(cells, render(report, "text", width).splitlines())) <= width


def test_nothing_is_cut(report: Report) -> None:
    squeezed = re.sub(r"[\s│├└─]", "", render(report, "text", 80))
    for i in range(30):
        assert f"segment_{i}" in squeezed
    assert squeezed.count("1.234e-05") == 19


def test_colour_only_where_asked(report: Report) -> None:
    assert "\x1b" not in render(report, "text", 80)
    colored = render(report, "text", 80, color=True)
    assert "\x1b[1;31m" in colored
    assert ANSI.sub("", colored) == render(report, "text", 80)


def test_findings_come_worst_first(report: Report) -> None:
    text = render(report, "text", 80)
    assert text.index("CK102") < text.index("CK602") < text.index("CK701")


def test_many_findings_of_one_rule_are_abridged_and_counted(report: Report) -> None:
    many = tuple(Finding("CK401", "nan", "error", f"w{i}", "1 NaN") for i in range(25))
    text = render(replace(report, blocks=(Findings(many),)), "text")
    assert text.count("CK401 nan – w") == 10
    assert "and 15 more of CK401 nan" in text


def test_a_wide_table_puts_the_key_on_its_own_line() -> None:
    key = "model.layers.0.self_attention.query.weight_and_more_words_than_fit"
    table = Table(("key", *"abcdef"), ((key, *("1.2345e-05",) * 6),), "lrrrrrr")
    lines = render(Report("inspect", {}, (table,)), "text", 80).splitlines()
    assert key in lines
    assert lines[lines.index(key) + 1].split() == ["1.2345e-05"] * 6


def test_tree_guides() -> None:
    tree = Tree(((0, "a"), (1, "b"), (2, "c"), (1, "d")))
    text = render(Report("inspect", {}, (tree,)), "text")
    assert text == "a\n├─ b\n│  └─ c\n└─ d\n"


def test_bars_show_what_is_above_zero() -> None:
    bars = Bars((("big", 1e9, "1 GB"), ("tiny", 1.0, "1 byte"), ("none", 0.0, "0 bytes")))
    big, tiny, none = render(Report("inspect", {}, (bars,)), "text").splitlines()
    assert "█" * 20 in big
    assert "▏" in tiny
    assert none.split() == ["none", "0", "bytes"]


def test_lines_of_a_text_stay_lines() -> None:
    assert render(Report("x", {}, (Text("one\ntwo"),)), "text") == "one\ntwo\n"


@given(st.text(max_size=60), st.integers(2, 30))
def test_wrapping_keeps_every_character_but_spaces(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cells(line) <= width for line in lines)


def test_wide_letters_count_twice() -> None:
    assert cells("权重") == 4
    assert cells("e\u0301") == 1
