"""Timelines and curves in characters: within their columns, every mark to be seen, the same without colour."""

from __future__ import annotations

import math

from hypothesis import example, given, strategies as st

from ckpttool.cli.output import _encodable
from ckpttool.render import render
from ckpttool.report import Block, Curves, Lane, Report, Timeline

MARKS = ("save", "kill", "resume", "depart")
SIGNS = dict(zip(MARKS, "s×r!", strict=True))


def shown(block: Block, width: int = 80) -> list[str]:
    return render(Report("determinism", {}, (block,)), "text", width).splitlines()


def test_a_timeline_shows_what_happened_where() -> None:
    lanes = (
        Lane("uninterrupted", 1, 8, ((4, "save"), (8, "save"))),
        Lane("killed after 5", 1, 5, ((4, "save"), (5, "kill"))),
        Lane("  resumed", 5, 8, ((5, "resume"), (6, "depart"), (8, "save"))),
        Lane("  resumed again", 1, 0),
    )
    assert shown(Timeline(lanes, 8, "what was run")) == [
        "what was run",
        "                 1   2   3   4   5   6   7   8",
        "uninterrupted    ───────────────s───────────────s",
        "killed after 5   ───────────────s───×",
        "  resumed                        r───!──────────s",
        "  resumed again",
        "─ a step  s saved after it  × killed after it  r first step after a resume",
        "! first that differs",
    ]


lanes_of = st.integers(1, 100_000).flatmap(
    lambda last: st.tuples(
        st.just(last),
        st.lists(
            st.builds(
                lambda a, b, marks: Lane("x" * (a % 40), min(a, b), max(a, b), tuple(marks)),
                st.integers(1, last),
                st.integers(1, last),
                st.lists(st.tuples(st.integers(1, last), st.sampled_from(MARKS)), max_size=4),
            ),
            max_size=5,
        ),
    )
)


@given(lanes_of, st.integers(30, 120))
def test_any_timeline_fits(case: tuple[int, list[Lane]], width: int) -> None:
    last, lanes = case
    lines = shown(Timeline(tuple(lanes), last), width)
    assert all(len(line) <= width for line in lines)
    for lane in lanes:
        if len(lane.marks) == 1:
            assert any(SIGNS[lane.marks[0][1]] in line for line in lines)


@example([[(1, 1.7e308), (2, -1.7e308)]], 60)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 5000), st.floats()), max_size=9), min_size=1, max_size=4),
    st.integers(30, 120),
)
def test_any_curves_fit(points: list[list[tuple[int, float]]], width: int) -> None:
    block = Curves(tuple((f"curve {i}", tuple(curve)) for i, curve in enumerate(points)), "loss")
    lines = shown(block, width)
    assert all(len(line) <= width for line in lines)
    finite = any(math.isfinite(y) for curve in points for _, y in curve)
    assert any("no finite value" in line for line in lines) != finite
    render(Report("determinism", {}, (block,)), "html").encode()


def test_curves_show_where_they_part() -> None:
    lines = shown(Curves((("one", ((1, 1.0), (2, 1.0), (3, 1.0))), ("two", ((2, 1.0), (3, 3.0)))), "loss"))
    assert lines[1].startswith("3 │")
    assert lines[1].endswith("×")
    assert lines[10].startswith("1 │ ·")
    assert lines[10].count("×") == 0, "where both agree the first is shown"
    assert lines[-1] == "· one  × two"


def test_terminals_without_such_signs_get_others() -> None:
    text = "\n".join(shown(Timeline((Lane("a", 1, 4, ((2, "kill"),)),), 4)))
    assert "x" in _encodable(text, "ascii")
    _encodable(text, "ascii").encode("ascii")
