"""What several formats need: the order of findings, how many to show, what counts as failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from ckpttool.model import Finding, Severity
from ckpttool.report import Report

Format: TypeAlias = Literal["text", "json", "markdown", "html", "github", "junit", "sarif"]

ORDER: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
"""Severities, worst first."""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity, then code; those of one rule stay in the order of the file."""
    return sorted(findings, key=lambda finding: (ORDER[finding.severity], finding.code))


def abridged(findings: Iterable[Finding], most: int) -> Iterator[Finding | str]:
    """Findings worst first, at most ``most`` of each rule; then a line that says how many were left out."""
    ordered = worst_first(findings)
    totals = Counter(finding.code for finding in ordered)
    shown: Counter[str] = Counter()
    for finding in ordered:
        shown[finding.code] += 1
        if shown[finding.code] <= most:
            yield finding
        if shown[finding.code] == totals[finding.code] > most:
            yield f"and {totals[finding.code] - most:,} more of {finding.code} {finding.name}"


def fails(finding: Finding, report: Report) -> bool:
    """Whether a finding is at or above the report's ``fail_on``."""
    return report.fail_on != "never" and ORDER[finding.severity] <= ORDER[report.fail_on]


def tally(findings: Iterable[Finding]) -> str:
    """``2 errors, 1 warning``; ``no findings`` where there are none."""
    totals = Counter(finding.severity for finding in findings)
    severities: tuple[Severity, ...] = ("error", "warning", "info")
    words = [_plural(totals[severity], severity) for severity in severities if totals[severity]]
    return ", ".join(words) or "no findings"


def _plural(number: int, severity: Severity) -> str:
    noun = {"error": "error", "warning": "warning", "info": "note"}[severity]
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
