"""One self-contained HTML page: no script, no request, light and dark, fit for a phone and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpttool.model import Finding
from ckpttool.render.common import abridged
from ckpttool.render.pictures import escape, picture
from ckpttool.render.runs_html import drawing
from ckpttool.render.style import CSS, PICTURES, RUNS
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

SHOWN = 200
"""Findings of one rule that a page lists."""


def html(report: Report) -> str:
    """The report's blocks as a page. Everything is escaped; its policy allows nothing but its own style."""
    body = "\n".join(line for block in report.blocks for line in _lines(block))
    blocks = list(_flat(report.blocks))
    styles = PICTURES if any(isinstance(block, (HeatMap, Histogram)) for block in blocks) else ""
    styles += RUNS if any(isinstance(block, (Timeline, Curves)) for block in blocks) else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_title(report)}</title>
<style>
{CSS}{styles}</style>
</head>
<body>
<main>
{body}
</main>
<footer>ckpttool {escape(report.verb)}</footer>
</body>
</html>
"""


def _flat(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _flat(block.blocks)


def _title(report: Report) -> str:
    titles = [block.text for block in report.blocks if isinstance(block, Text) and block.style == "title"]
    return " – ".join(map(escape, [f"ckpttool {report.verb}", *titles[:1]]))


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        return _paragraph(block)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        return _facts(block)
    if isinstance(block, Findings):
        return _findings(block)
    if isinstance(block, Tree):
        return _tree(block)
    if isinstance(block, (HeatMap, Histogram)):
        return picture(block)
    if isinstance(block, (Timeline, Curves)):
        return drawing(block)
    if isinstance(block, Details):
        return _details(block)
    return _bars(block)


def _paragraph(block: Text) -> Iterator[str]:
    tag = {"title": "h1", "heading": "h2"}.get(block.style, "p")
    body = "<br>".join(map(escape, block.text.split("\n")))
    yield f'<{tag} class="{block.style}">{body}</{tag}>'


def _table(block: Table) -> Iterator[str]:
    if block.title:
        yield f"<h2>{escape(block.title)}</h2>"
    align = block.align.ljust(len(block.columns), "l")
    head = "".join(f'<th class="{a}" scope="col">{escape(c)}</th>' for a, c in zip(align, block.columns, strict=False))
    yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>'
    for row in block.rows:
        first = f'<th class="{align[0]}" scope="row"><code>{escape(row[0])}</code></th>'
        rest = "".join(f'<td class="{a}">{escape(c)}</td>' for a, c in zip(align[1:], row[1:], strict=False))
        yield f"<tr>{first}{rest}</tr>"
    yield "</tbody></table></div>"


def _facts(block: Facts) -> Iterator[str]:
    yield "<dl>"
    yield from (f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in block.rows)
    yield "</dl>"


def _findings(block: Findings) -> Iterator[str]:
    if block.findings:
        yield '<ul class="findings">'
        yield from map(_finding, abridged(block.findings, SHOWN))
        yield "</ul>"


def _finding(finding: Finding | str) -> str:
    if isinstance(finding, str):
        return f'<li class="dim">{escape(finding)}</li>'
    where = f" <code>{escape(finding.where)}</code>" if finding.where else ""
    hint = f'<p class="hint">→ {escape(finding.hint)}</p>' if finding.hint else ""
    return (
        f'<li class="{finding.severity}"><p><b class="badge">{finding.severity}</b> '
        f"<b>{escape(finding.code)} {escape(finding.name)}</b>{where}</p>"
        f"<p>{escape(finding.message)}</p>{hint}</li>"
    )


def _tree(block: Tree) -> Iterator[str]:
    yield '<div class="tree">'
    # Depth is a number of ours, capped so that a hostile tree still fits a page.
    yield from (f'<div style="--depth:{min(depth, 24)}">{escape(text)}</div>' for depth, text in block.lines)
    yield "</div>"


def _details(block: Details) -> Iterator[str]:
    yield f"<details><summary>{escape(block.summary)}</summary>"
    for inner in block.blocks:
        yield from _lines(inner)
    yield "</details>"


def _bars(block: Bars) -> Iterator[str]:
    if block.title:
        yield f"<h2>{escape(block.title)}</h2>"
    top = max((quantity for _, quantity, _ in block.rows), default=0.0)
    yield '<div class="bars">'
    for label, quantity, behind in block.rows:
        share = 100 * max(quantity, 0.0) / top if top > 0 else 0.0
        bar = f'<i style="width:{share:.1f}%"></i>' if share else ""
        yield (f'<div><span>{escape(label)}</span><span class="track">{bar}</span><span>{escape(behind)}</span></div>')
    yield "</div>"
