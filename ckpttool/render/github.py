"""Workflow commands of GitHub Actions: one annotation for each finding.

Source: github.com/actions/toolkit, ``packages/core/src/command.ts`` (which characters are escaped where).
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.model import Finding
from ckpttool.render.common import worst_first
from ckpttool.report import Report, Subject

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def github(report: Report) -> str:
    """A line for each finding, worst first within a file. Empty where nothing was found."""
    return "".join(f"{line}\n" for subject in report.subjects for line in _subject(subject))


def _subject(subject: Subject) -> Iterator[str]:
    if subject.error:
        yield _command("error", subject.path, f"ckpttool: {subject.verdict}", printable(subject.error))
    for finding in worst_first(subject.findings):
        title = f"{finding.code} {finding.name}"
        yield _command(_COMMANDS[finding.severity], subject.path, title, _message(finding))


def _message(finding: Finding) -> str:
    where = f"{printable(finding.where)} – " if finding.where else ""
    hint = f"\n→ {printable(finding.hint)}" if finding.hint else ""
    return f"{where}{printable(finding.message)}{hint}"


def _command(name: str, path: str, title: str, message: str) -> str:
    return f"::{name} file={_property(printable(path))},title={_property(printable(title))}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
