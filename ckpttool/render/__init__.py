"""A report as text: one module for each format, each a pure function. None looks at the terminal or at files.

``text`` and ``markdown`` and ``html`` show the report's blocks; ``json`` its data; ``github``, ``junit`` and
``sarif`` its subjects' findings.
"""

from __future__ import annotations

from typing import get_args

from ckpttool.render.common import Format
from ckpttool.report import Report

FORMATS: tuple[Format, ...] = get_args(Format)

SUFFIXES: dict[str, Format] = {
    ".txt": "text",
    ".json": "json",
    ".md": "markdown",
    ".html": "html",
    ".xml": "junit",
    ".sarif": "sarif",
}
"""The format that a report file's suffix asks for."""


def render(report: Report, format: str, width: int = 80, color: bool = False) -> str:  # noqa: A002
    """The report in one of ``FORMATS``, ending in a newline unless it is empty.

    ``width`` (columns) and ``color`` (ANSI escapes) matter to ``text`` alone. The result never holds a
    control character that came from a file. Raises ``ValueError`` for an unknown format.
    """
    # Only the module that is asked for is loaded: the XML and HTML machinery costs start-up time.
    if format == "text":
        from ckpttool.render.text import text

        return text(report, width, color)
    if format == "json":
        from ckpttool.render.json import json_text

        return json_text(report)
    if format == "markdown":
        from ckpttool.render.markdown import markdown

        return markdown(report)
    if format == "html":
        from ckpttool.render.html import html

        return html(report)
    if format == "github":
        from ckpttool.render.github import github

        return github(report)
    if format == "junit":
        from ckpttool.render.junit import junit

        return junit(report)
    if format == "sarif":
        from ckpttool.render.sarif import sarif

        return sarif(report)
    raise ValueError(f"no format is called {format!r}: there are {', '.join(FORMATS)}")
