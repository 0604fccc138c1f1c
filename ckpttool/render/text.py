"""Plain text for a terminal: the report's blocks in a given number of columns.

Written without a library, so that a small file is inspected in the time that Python takes to start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.model import Finding
from ckpttool.render.columns import cells, pad, wrap
from ckpttool.render.common import abridged
from ckpttool.render.runs import curve_lines, timeline_lines
from ckpttool.render.shades import heat_lines, histogram_rows
from ckpttool.render.tables import table_lines
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

SHOWN = 10
"""Findings of one rule that a person is shown; ``--json`` has all."""

NARROWEST = 30

BAR = 24
"""Columns of the longest bar; half of them where the words behind need the room."""

MIN_WORDS = 12
"""Columns below which words are not squeezed for the sake of a bar."""

_STYLES = {
    "title": "1",
    "heading": "1",
    "good": "32",
    "bad": "1;31",
    "warning": "33",
    "dim": "2",
    "error": "1;31",
    "info": "36",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What the lines are laid out for."""

    width: int
    color: bool

    def styled(self, text: str, style: str) -> str:
        """The text in a role's colour, or as it is."""
        code = _STYLES.get(style) if self.color else None
        return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def text(report: Report, width: int = 80, color: bool = False) -> str:
    """The report for a terminal of ``width`` columns; no line is wider, and nothing is cut."""
    page = Page(max(width, NARROWEST), color)
    lines = block_lines(report.blocks, page)
    if any(isinstance(block, Findings) and block.findings for block in report.blocks):
        hint = "`ckpttool explain CODE` says what a finding means and what to do about it."
        lines += ["", *(page.styled(line, "dim") for line in wrap(hint, page.width))]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def block_lines(blocks: Iterable[Block], page: Page) -> list[str]:
    """The blocks' lines, with blank ones between blocks that stand apart."""
    lines: list[str] = []
    before: Block | None = None
    for block in blocks:
        made = list(_lines(block, page))
        if made and lines and _apart(before, block):
            lines.append("")
        lines.extend(made)
        before = block if made else before
    return lines


def _apart(before: Block | None, block: Block) -> bool:
    """Whether a blank line stands between two blocks."""
    if isinstance(before, Text) and before.style in ("title", "heading"):
        return False
    if isinstance(before, Text) and isinstance(block, Text):
        return block.style in ("title", "heading") or (before.style == "dim" != block.style)
    return True


def _lines(block: Block, page: Page) -> Iterator[str]:
    if isinstance(block, Text):
        return _paragraph(block, page)
    if isinstance(block, Table):
        return _table(block, page)
    if isinstance(block, Facts):
        return _facts(block, page)
    if isinstance(block, Findings):
        return _findings(block, page)
    if isinstance(block, Tree):
        return _tree(block, page)
    if isinstance(block, HeatMap):
        return _drawn(block.title, heat_lines(block, page.width), page)
    if isinstance(block, Histogram):
        return _bars(Bars(histogram_rows(block), _titled(block.title, block.axis)), page)
    if isinstance(block, Timeline):
        return _drawn(block.title, timeline_lines(block, page.width), page)
    if isinstance(block, Curves):
        return _drawn(block.title, curve_lines(block, page.width), page)
    if isinstance(block, Details):
        return iter(block_lines((Text(block.summary, "heading"), *block.blocks), page))
    return _bars(block, page)


def _paragraph(block: Text, page: Page) -> Iterator[str]:
    for line in block.text.split("\n"):
        for piece in wrap(printable(line), page.width):
            yield page.styled(piece, block.style)


def _table(block: Table, page: Page) -> Iterator[str]:
    if block.title:
        yield page.styled(printable(block.title), "heading")
    for line, is_head in table_lines(block, page.width):
        yield page.styled(line.rstrip(), "dim") if is_head else line


def _facts(block: Facts, page: Page) -> Iterator[str]:
    widest = max((cells(printable(label)) for label, _ in block.rows), default=0)
    label_width = min(widest, page.width // 2)
    for label, value in block.rows:
        labels = wrap(printable(label), label_width)
        values = wrap(printable(value), page.width - label_width - 2)
        for name, line in zip_longest(labels, values, fillvalue=""):
            yield f"{page.styled(pad(name, label_width), 'dim')}  {line}"


def _findings(block: Findings, page: Page) -> Iterator[str]:
    for finding in abridged(block.findings, SHOWN):
        if isinstance(finding, str):
            yield from (page.styled(f"         {line}", "dim") for line in wrap(finding, page.width - 9))
        else:
            yield from _finding(finding, page)


def _finding(finding: Finding, page: Page) -> Iterator[str]:
    head = f"{finding.code} {finding.name}" + (f" – {printable(finding.where)}" if finding.where else "")
    first, *rest = wrap(head, page.width - 9)
    yield f"{page.styled(pad(finding.severity, 7), finding.severity)}  {page.styled(first, 'title')}"
    yield from (f"         {page.styled(line, 'title')}" for line in rest)
    yield from (f"         {line}" for line in wrap(printable(finding.message), page.width - 9))
    if finding.hint:
        yield from (f"         {line}" for line in wrap(f"→ {printable(finding.hint)}", page.width - 9))


def _tree(block: Tree, page: Page) -> Iterator[str]:
    widest = page.width // 2
    drawn: list[list[str]] = []
    open_levels = 0
    for depth, content in reversed(block.lines):
        guide = "".join("│  " if open_levels >> level & 1 else "   " for level in range(1, depth))
        follows = bool(open_levels >> depth & 1)
        # Very deep trees keep the innermost guides: half the line stays for the text.
        branch, stem = ("├─ ", "│  ") if follows else ("└─ ", "   ")
        before, below = ((guide + branch)[-widest:], (guide + stem)[-widest:]) if depth else ("", "")
        first, *rest = wrap(printable(content), page.width - len(before))
        drawn.append([before + first, *(below + line for line in rest)])
        open_levels = (open_levels & ((1 << depth) - 1)) | 1 << depth
    for lines in reversed(drawn):
        yield from lines


def _drawn(title: str, lines: Iterable[str], page: Page) -> Iterator[str]:
    if title:
        yield from (page.styled(line, "heading") for line in wrap(printable(title), page.width))
    yield from lines


def _titled(title: str, axis: str) -> str:
    return f"{title} ({axis})" if title and axis else title or axis


def _bars(block: Bars, page: Page) -> Iterator[str]:
    if block.title:
        yield from (page.styled(line, "heading") for line in wrap(printable(block.title), page.width))
    labels = [printable(label) for label, _, _ in block.rows]
    texts = [printable(behind) for _, _, behind in block.rows]
    label_width = min(max(map(cells, labels), default=0), page.width // 3)
    room = page.width - label_width - 4
    words = min(max(map(cells, texts), default=0), max(room - BAR // 2, 0))
    size = min(room - words, BAR) if words >= MIN_WORDS or room - words >= BAR // 2 else 0
    top = max((quantity for _, quantity, _ in block.rows), default=0.0)
    for label, (_, quantity, _), behind in zip(labels, block.rows, texts, strict=True):
        bar = pad(_bar(quantity, top, size), size) + "  " if size else ""
        said = wrap(behind, page.width - label_width - 2 - len(bar))
        names = wrap(label, label_width)
        for at, (name, line) in enumerate(zip_longest(names, said, fillvalue="")):
            yield f"{pad(name, label_width)}  {' ' * len(bar) if at else bar}{line}"


def _bar(quantity: float, top: float, width: int) -> str:
    """A bar in eighths of a cell; anything above zero shows."""
    if top <= 0 or quantity <= 0:
        return ""
    eighths = max(1, round(quantity / top * width * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
