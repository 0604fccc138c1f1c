"""Heat maps and histograms as HTML: a table whose cells are shaded, and columns. No script, no image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape as html_escape

from ckpttool.errors import printable
from ckpttool.render.shades import SIZELESS, Scale, kinds, scale_of
from ckpttool.report import Cell, HeatMap, Histogram
from ckpttool.units import count

STEPS = 5
"""Shades that the style sheet has, beside the one for nothing."""


def escape(text: str) -> str:
    """Text that is text wherever it stands, attributes included."""
    return html_escape(printable(text), quote=True)


def picture(block: HeatMap | Histogram) -> Iterator[str]:
    """The block's HTML. Everything that colour says stands there as text too."""
    if block.title:
        yield f"<h2>{escape(block.title)}</h2>"
    yield from _heat_map(block) if isinstance(block, HeatMap) else _histogram(block)


def _heat_map(block: HeatMap) -> Iterator[str]:
    scale = scale_of(block, STEPS)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in block.columns)
    label = f' aria-label="{escape(block.title)}"' if block.title else ""
    yield f'<div class="wide heat"><table{label}><thead><tr><td></td>{head}</tr></thead><tbody>'
    for name, cells in zip(block.rows, block.cells, strict=True):
        fields = "".join(_field(cell, scale) for cell in cells)
        yield f'<tr><th scope="row">{escape(name)}</th>{fields}</tr>'
    yield "</tbody></table></div>"
    yield from _legend(block, scale)


def _field(cell: Cell | None, scale: Scale) -> str:
    if cell is None:
        return '<td class="none"></td>'
    title = f' title="{escape(cell.title)}"' if cell.title else ""
    if math.isnan(cell.quantity):
        return f'<td class="odd"{title}>{escape(cell.text or SIZELESS)}</td>'
    return f'<td class="s{scale.shade(cell.quantity)}"{title}>{escape(cell.text)}</td>'


def _legend(block: HeatMap, scale: Scale) -> Iterator[str]:
    zero, sizeless = kinds(block)
    keys = [("s0", block.zero)] if zero else []
    keys += [(f"s{shade}", text) for shade, text in scale.legend()]
    keys += [("odd", block.sizeless)] if sizeless else []
    named = f"<span>{escape(block.quantity)}</span>" if block.quantity and scale.edges else ""
    shown = "".join(f'<span><i class="{style}"></i>{escape(text)}</span>' for style, text in keys)
    yield f'<p class="legend">{named}{shown}</p>'


def _histogram(block: Histogram) -> Iterator[str]:
    top = max((number for _, number, _ in block.bins), default=0)
    yield '<figure class="histogram"><ul>'
    for label, number, words in block.bins:
        bar = f'<i style="height:{100 * number / top:.1f}%"></i>' if number else ""
        yield (
            f'<li title="{escape(words)}: {count(number)}"><span class="column">{bar}</span>'
            f'<b aria-hidden="true">{escape(label)}</b><span class="sr">{escape(words)}: {count(number)}</span></li>'
        )
    most = f"highest column: {count(top)}"
    axis = f"{escape(block.axis)}; {most}" if block.axis else most
    yield f"</ul><figcaption>{axis}</figcaption></figure>"
