"""Markdown for a pull request's comment or a job's summary (GitHub's flavour)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ckpttool.errors import printable
from ckpttool.model import Finding
from ckpttool.render.common import abridged
from ckpttool.report import Bars, Block, Facts, Findings, Report, Table, Text, Tree

SHOWN = 20
"""Findings of one rule that a comment lists."""

_SIGNS = {"error": "🔴 error", "warning": "🟠 warning", "info": "🔵 info"}
_MARKS = {"title": "## ", "heading": "### "}
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~])")


def markdown(report: Report) -> str:
    """The report's blocks. Names from files can neither break the layout nor mention or link anything."""
    parts = ["\n".join(lines) for block in report.blocks if (lines := list(_lines(block)))]
    return "\n\n".join(parts) + "\n" if parts else ""


def escape(text: str) -> str:
    """Text that reads as itself: no markup, no tags, no ``@mention``, no ``#1`` reference."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = _SPECIAL.sub(r"\\\1", safe).replace("@", "&#64;")
    # A colon or a dot spelled as an entity keeps a bare URL from becoming a link.
    return safe.replace("://", "&#58;//").replace("www.", "www&#46;")


def code(text: str, *, in_table: bool = False) -> str:
    """Text in a code span, fenced by more backticks than it holds."""
    safe = printable(text) or " "
    longest = max((len(run) for run in re.findall("`+", safe)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if safe.startswith("`") or safe.endswith("`") else ""
    # In a table a bar ends the cell even inside a code span, unless escaped.
    return f"{fence}{gap}{safe.replace('|', chr(92) + '|') if in_table else safe}{gap}{fence}"


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        return _paragraph(block)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        return _grid(("", ""), [(escape(label), escape(value)) for label, value in block.rows], "ll")
    if isinstance(block, Findings):
        return _findings(block)
    if isinstance(block, Tree):
        return _tree(block)
    return _bars(block)


def _paragraph(block: Text) -> Iterator[str]:
    lines = [escape(line) for line in block.text.split("\n")]
    if block.style in _MARKS:
        yield _MARKS[block.style] + " ".join(lines)
    elif block.style in ("good", "bad", "warning"):
        yield "  \n".join(f"**{line}**" if line else "" for line in lines)
    else:
        yield "  \n".join(lines)


def _table(block: Table) -> Iterator[str]:
    if block.title:
        yield from (f"### {escape(block.title)}", "")
    rows = [(code(row[0], in_table=True), *map(escape, row[1:])) for row in block.rows]
    yield from _grid(tuple(map(escape, block.columns)), rows, block.align)


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
    return (
        _SIGNS[finding.severity],
        f"{finding.code} {escape(finding.name)}",
        where,
        escape(finding.message) + hint,
    )


def _tree(block: Tree) -> Iterator[str]:
    lines = [f"{'  ' * min(depth, 40)}{printable(text)}" for depth, text in block.lines]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield from (f"{fence}text", *lines, fence)


def _bars(block: Bars) -> Iterator[str]:
    if block.title:
        yield from (f"### {escape(block.title)}", "")
    total = sum(quantity for _, quantity, _ in block.rows)
    rows = [
        (escape(label), f"{quantity / total:.0%}" if total else "", escape(behind))
        for label, quantity, behind in block.rows
    ]
    yield from _grid(("", "share", ""), rows, "lrl")
