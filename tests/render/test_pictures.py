"""Heat maps, histograms and folded details say the same in every format, in colour and without."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, strategies as st

from ckpttool.render import render
from ckpttool.render.markdown import LONGEST
from ckpttool.render.shades import scale_of
from ckpttool.report import Block, Cell, Details, HeatMap, Histogram, Report, Table, Text, Tree

MAP = HeatMap(
    ("h.0", "h.1"),
    ("q", "mlp"),
    ((Cell(0.0), Cell(0.1, "0.1", "h.0 mlp")), (Cell(math.nan, "", "h.1 q: reshaped"), None)),
    "largest change",
    "size",
    "unchanged",
    "reshaped",
)
HISTOGRAM = Histogram((("1e-3", 3, "a thousandth"), ("1e-2", 0, "a hundredth"), ("1e-1", 9, "a tenth")), "how many")


def shown(block: Block, format_: str) -> str:
    return render(Report("diff", {}, (block,)), format_)


def test_text_draws_the_map_and_says_what_shades_mean() -> None:
    assert shown(MAP, "text").splitlines() == [
        "largest change",
        "     q  mlp",
        "h.0  ·· ██",
        "h.1  ≠≠",
        "size:  █ ≥ 0.1  · unchanged  ≠ reshaped",
    ]


def test_columns_that_do_not_fit_come_below() -> None:
    wide = HeatMap(("h.0",), tuple(f"column_{i}" for i in range(20)), ((Cell(1.0),) * 20,))
    lines = render(Report("diff", {}, (wide,)), "text", 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join(lines).count("██") == 20


def test_html_cells_say_in_words_what_colour_says() -> None:
    page = shown(MAP, "html")
    assert '<td class="s5" title="h.0 mlp">0.1</td>' in page
    assert '<td class="odd" title="h.1 q: reshaped">≠</td>' in page
    assert '<td class="s0"></td>' in page
    assert '<th scope="row">h.1</th>' in page
    assert '<i class="s0"></i>unchanged' in page
    assert "--s5" not in shown(Text("plain"), "html"), "pages without pictures stay small"


def test_histograms_have_a_column_for_each_range() -> None:
    page = shown(HISTOGRAM, "html")
    assert re.findall(r"height:([0-9.]+)%", page) == ["33.3", "100.0"]
    assert "a tenth: 9" in page
    assert [line.split()[-1] for line in shown(HISTOGRAM, "text").splitlines()[1:]] == ["3", "0", "9"]


def test_details_fold_where_they_can() -> None:
    details = Details("all of them", (Text("inner"), Table(("key",), (("k",),))))
    assert shown(details, "text").startswith("all of them\ninner\n")
    assert "<details><summary>all of them</summary>\n<p" in shown(details, "html")
    assert shown(details, "markdown").startswith("<details><summary>all of them</summary>\n\ninner\n\n| key |")


@pytest.mark.parametrize(
    "block",
    [
        Table(("key", "what"), tuple((f"layers.{i}.weight", "rewritten " * 5) for i in range(5000))),
        Details("all", (Table(("key",), tuple((f"layers.{i}.weight",) for i in range(9000))),)),
        Tree(tuple((1, f"layers.{i}.weight") for i in range(9000))),
        HeatMap(tuple(f"h.{i}" for i in range(9000)), ("q",), ((Cell(1.0),),) * 9000),
    ],
    ids=["table", "details", "tree", "heat map"],
)
def test_markdown_fits_a_comment_and_says_what_is_left_out(block: Block) -> None:
    text = shown(block, "markdown")
    assert len(text) <= LONGEST < 65_536
    assert re.search(r"\*and [0-9,]+ more\*", text)
    assert text.count("<details>") == text.count("</details>")
    assert text.count("```") % 2 == 0


def test_markdown_folds_long_tables() -> None:
    def table(rows: int) -> str:
        return shown(Table(("key",), (("k",),) * rows, title="every #1 key"), "markdown")

    assert table(3).startswith("### every \\#1 key\n\n| key |")
    assert table(30).startswith("<details><summary>every &#35;1 key&#58; 30 rows</summary>\n\n| key |")


def test_markdown_leaves_out_blocks_at_last() -> None:
    text = render(Report("diff", {}, tuple(Text("word " * 2000) for _ in range(9))), "markdown")
    assert len(text) <= LONGEST
    assert "*3 parts left out" in text


@given(st.lists(st.floats(0, 2) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=20), st.integers(1, 6))
def test_more_is_never_fainter(quantities: list[float], steps: int) -> None:
    scale = scale_of(HeatMap(("r",), ("c",) * len(quantities), (tuple(map(Cell, quantities)),)), steps)
    sized = sorted(q for q in quantities if not math.isnan(q))
    shades = [scale.shade(q) for q in sized]
    assert shades == sorted(shades)
    assert all((shade > 0) == (q > 0) for q, shade in zip(sized, shades, strict=True))
    assert all(0 <= shade <= steps for shade in shades)
    assert not sized or sized[-1] == 0 or shades[-1] == steps
