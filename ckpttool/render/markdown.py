"""Markdown for a pull request's comment or a job's summary (GitHub's flavour)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from html import escape as html_escape
from itertools import chain
from typing import TypeAlias

from ckpttool.errors import printable
from ckpttool.model import Finding
from ckpttool.render.common import abridged
from ckpttool.render.text import Page, block_lines
from ckpttool.report import (
    Bars,
    Block,
    Curves,
    Details,
    Facts,
    Findings,
    HeatMap,
    Histogram,
    Report,
    Table,
    Text,
    Timeline,
    Tree,
)
from ckpttool.units import count, plural

SHOWN = 20
"""Findings of one rule that a comment lists."""

LONGEST = 65_000
"""Characters of a page: GitHub refuses comments of more than 65,536."""

FOLDED = 12
"""Rows of a table up to which it stands open in a comment."""

WIDTH = 78
"""Columns of pictures drawn with characters: a comment's code block shows them without scrolling."""

_SIGNS = {"error": "🔴 error", "warning": "🟠 warning", "info": "🔵 info"}
_MARKS = {"title": "## ", "heading": "### "}
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~])")


Picture: TypeAlias = Bars | HeatMap | Histogram | Timeline | Curves


def markdown(report: Report) -> str:
    """The report's blocks. Names from files can neither break the layout nor mention or link anything.

    At most ``LONGEST`` characters: where more would come, tables and trees show fewer rows and say how many
    are left out, and at last blocks are left out.
    """
    most = max((_longest(block) for block in report.blocks), default=0)
    while True:
        parts = _parts(report.blocks, most)
        if most <= 1 or sum(map(len, parts)) + 2 * len(parts) <= LONGEST:
            return _fitting(parts)
        most //= 2


def _longest(block: Block) -> int:
    """Rows of the longest table or tree in a block."""
    if isinstance(block, Details):
        return max(map(_longest, block.blocks), default=0)
    if isinstance(block, (Table, Bars, HeatMap, Facts)):
        return len(block.rows)
    if isinstance(block, Timeline):
        return len(block.lanes)
    return len(block.lines) if isinstance(block, Tree) else 0


def _parts(blocks: Iterable[Block], most: int) -> list[str]:
    return ["\n".join(lines) for block in blocks if (lines := list(_lines(block, most)))]


def _fitting(parts: list[str]) -> str:
    """The parts that fit, joined; a line says how many do not."""
    kept, room = [], LONGEST - 100
    for part in parts:
        room -= len(part) + 2
        if room < 0:
            break
        kept.append(part)
    left = len(parts) - len(kept)
    kept += [f"*{plural(left, 'part')} left out: a comment cannot hold more*"] if left else []
    return "\n\n".join(kept) + "\n" if kept else ""


def escape(text: str) -> str:
    """Text that reads as itself: no markup, no tags, no ``@mention``, no ``#1`` reference."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = _SPECIAL.sub(r"\\\1", safe).replace("@", "&#64;")
    # A colon or a dot spelled as an entity keeps a bare URL from becoming a link.
    return safe.replace("://", "&#58;//").replace("www.", "www&#46;")


def _in_tag(text: str) -> str:
    """The same inside an HTML element, where markdown's own escapes would show."""
    safe = html_escape(printable(text))
    return re.sub(r"[@:]|(?<!&)#|(?<=www)\.", lambda sign: f"&#{ord(sign[0])};", safe)


def code(text: str, *, in_table: bool = False) -> str:
    """Text in a code span, fenced by more backticks than it holds."""
    safe = printable(text) or " "
    longest = max((len(run) for run in re.findall("`+", safe)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if safe.startswith("`") or safe.endswith("`") else ""
    # In a table a bar ends the cell even inside a code span, unless escaped.
    return f"{fence}{gap}{safe.replace('|', chr(92) + '|') if in_table else safe}{gap}{fence}"


def _lines(block: Block, most: int) -> Iterator[str]:
    if isinstance(block, Text):
        return _paragraph(block)
    if isinstance(block, Table):
        return _table(block, most)
    if isinstance(block, Facts):
        rows = [(escape(label), escape(value)) for label, value in block.rows[:most]]
        return chain(_grid(("", ""), rows, "ll"), _more(len(block.rows), most))
    if isinstance(block, Findings):
        return _findings(block)
    if isinstance(block, Tree):
        return chain(_tree(block, most), _more(len(block.lines), most))
    if isinstance(block, Details):
        return _details(block, most)
    if isinstance(block, Bars) and block.parts:
        return chain(_bars(block, most), _more(len(block.rows), most))
    return _drawn(block, most)


def _more(there: int, most: int) -> Iterator[str]:
    if there > most:
        yield from ("", f"*and {count(there - most)} more*")


def _details(block: Details, most: int) -> Iterator[str]:
    # Without the blank lines the markdown inside would be shown as it is written.
    yield from (f"<details><summary>{_in_tag(block.summary)}</summary>", "")
    for part in _parts(block.blocks, most):
        yield from (part, "")
    yield "</details>"


def _drawn(block: Picture, most: int) -> Iterator[str]:
    """A picture as the terminal shows it, in a code block."""
    if block.title:
        yield from (f"### {escape(block.title)}", "")
    drawn = block_lines((_cut(block, most),), Page(WIDTH, color=False))
    yield from _fenced([line.rstrip() for line in drawn])
    if isinstance(block, (Bars, HeatMap)):
        yield from _more(len(block.rows), most)
    if isinstance(block, Timeline):
        yield from _more(len(block.lanes), most)


def _cut(block: Picture, most: int) -> Block:
    """The picture without its title and with no more than ``most`` rows."""
    if isinstance(block, HeatMap):
        return replace(block, title="", rows=block.rows[:most], cells=block.cells[:most])
    if isinstance(block, Bars):
        return replace(block, title="", rows=block.rows[:most])
    if isinstance(block, Timeline):
        return replace(block, title="", lanes=block.lanes[:most])
    return replace(block, title="")


def _paragraph(block: Text) -> Iterator[str]:
    lines = [escape(line) for line in block.text.split("\n")]
    if block.style in _MARKS:
        yield _MARKS[block.style] + " ".join(lines)
    elif block.style in ("good", "bad", "warning"):
        yield "  \n".join(f"**{line}**" if line else "" for line in lines)
    else:
        yield "  \n".join(lines)


def _table(block: Table, most: int) -> Iterator[str]:
    rows = [(code(row[0], in_table=True), *map(escape, row[1:])) for row in block.rows[:most]]
    grid = chain(_grid(tuple(map(escape, block.columns)), rows, block.align), _more(len(block.rows), most))
    if len(rows) > FOLDED:
        title = block.title or block.columns[0]
        summary = _in_tag(f"{title}: {plural(len(block.rows), 'row')}")
        yield from (f"<details><summary>{summary}</summary>", "")
        yield from (*grid, "", "</details>")
        return
    if block.title:
        yield from (f"### {escape(block.title)}", "")
    yield from grid


def _grid(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], align: str) -> Iterator[str]:
    marks = ["---:" if mark == "r" else "---" for mark in align.ljust(len(columns), "l")]
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join(marks)} |"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _findings(block: Findings) -> Iterator[str]:
    rows = [_finding(finding) for finding in abridged(block.findings, SHOWN)]
    yield from _grid(("severity", "rule", "where", "what"), rows, "llll") if rows else ()


def _finding(finding: Finding | str) -> tuple[str, ...]:
    if isinstance(finding, str):
        return ("", "", "", f"*{escape(finding)}*")
    where = code(finding.where, in_table=True) if finding.where else ""
    hint = f"<br>→ {escape(finding.hint)}" if finding.hint else ""
    return (_SIGNS[finding.severity], f"{finding.code} {escape(finding.name)}", where, escape(finding.message) + hint)


def _tree(block: Tree, most: int) -> Iterator[str]:
    return _fenced([f"{'  ' * min(depth, 40)}{printable(text)}" for depth, text in block.lines[:most]])


def _fenced(lines: list[str]) -> Iterator[str]:
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (f"{fence}text", *lines, fence)


def _bars(block: Bars, most: int) -> Iterator[str]:
    if block.title:
        yield from (f"### {escape(block.title)}", "")
    total = sum(quantity for _, quantity, _ in block.rows)
    rows = [
        (escape(label), f"{quantity / total:.0%}" if total else "", escape(behind))
        for label, quantity, behind in block.rows[:most]
    ]
    yield from _grid(("", "share", ""), rows, "lrl")
