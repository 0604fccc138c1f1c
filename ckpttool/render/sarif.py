"""SARIF 2.1.0 for code scanning: one run, the rules with their pages, a result for each finding.

Source: OASIS SARIF 2.1.0 errata 01; GitHub's notes on what its code scanning shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from inspect import cleandoc
from pathlib import PurePath
from urllib.parse import quote

from ckpttool.errors import printable
from ckpttool.model import Finding, Json
from ckpttool.render.common import worst_first
from ckpttool.report import Report, Subject
from ckpttool.rules import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def sarif(report: Report) -> str:
    """The report as a SARIF log: the rules that findings name, with the pages in ``report.rules``."""
    found = sorted({(f.code, f.name, f.severity) for s in report.subjects for f in s.findings})
    pages = {rule.code: rule for rule in report.rules}
    codes = {code: place for place, code in enumerate(dict.fromkeys(code for code, _, _ in found))}
    rules = {code: _rule(code, name, severity, pages.get(code)) for code, name, severity in reversed(found)}
    driver: dict[str, Json] = {"name": "ckpttool", "rules": [rules[code] for code in codes], **_version()}
    run: dict[str, Json] = {
        "tool": {"driver": driver},
        "invocations": [_invocation(report)],
        "results": [_result(s, f, codes[f.code]) for s in _examined(report) for f in worst_first(s.findings)],
        "columnKind": "unicodeCodePoints",
    }
    log: dict[str, Json] = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2) + "\n"


def _examined(report: Report) -> Iterable[Subject]:
    return (subject for subject in report.subjects if not subject.error)


def _version() -> dict[str, Json]:
    try:
        return {"version": version("ckpttool")}
    except PackageNotFoundError:
        return {}


def _rule(code: str, name: str, severity: str, rule: Rule | None) -> dict[str, Json]:
    made: dict[str, Json] = {
        "id": code,
        "name": name,
        "defaultConfiguration": {"level": _LEVELS[rule.severity if rule else severity]},
        "shortDescription": {"text": rule.title if rule else name},
    }
    if rule is not None:
        page = cleandoc(rule.page)
        parts = [part for part in page.split("\n\n") if part.startswith("What: ")]
        made["fullDescription"] = {"text": parts[0].removeprefix("What: ") if parts else rule.title}
        made["help"] = {"text": page, "markdown": _markdown(page)}
        made["properties"] = {"tags": [rule.axis] if rule.axis != "none" else []}
    return made


def _markdown(page: str) -> str:
    paragraphs = (part.partition(": ") for part in page.split("\n\n"))
    return "\n\n".join(
        f"**{head}:** {rest}" if rest and head in ("What", "Why", "Cause", "Remedy") else head + colon + rest
        for head, colon, rest in paragraphs
    )


def _result(subject: Subject, finding: Finding, index: int) -> dict[str, Json]:
    text = printable(finding.message) + (f" → {printable(finding.hint)}" if finding.hint else "")
    location: dict[str, Json] = {"physicalLocation": {"artifactLocation": {"uri": uri(subject.path)}}}
    if finding.where:
        location["logicalLocations"] = [{"fullyQualifiedName": printable(finding.where)}]
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"ckpttool/v1": fingerprint(subject, finding)},
    }


def fingerprint(subject: Subject, finding: Finding) -> str:
    """The same for the same trouble at the same place; messages may be reworded, numbers may move."""
    parts = (PurePath(subject.path).name, finding.code, finding.where)
    return hashlib.sha256("\0".join(map(printable, parts)).encode()).hexdigest()[:32]


def uri(path: str) -> str:
    """A path as a URI reference: relative paths stay relative, absolute ones become ``file:``, URLs stay."""
    if "://" in path:
        return quote(printable(path), safe=":/?#[]@!$&'()*+,;=%~")
    pure = PurePath(path)
    text = quote(pure.as_posix().encode("utf-8", "surrogateescape"), safe="/~")
    if pure.is_absolute():
        return "file://" + (text if text.startswith("/") else f"/{text}")
    return text


def _invocation(report: Report) -> dict[str, Json]:
    failed = [subject for subject in report.subjects if subject.error]
    notes: list[Json] = [
        {
            "level": "error",
            "message": {"text": printable(subject.error)},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(subject.path)}}}],
        }
        for subject in failed
    ]
    return {"executionSuccessful": not failed, "exitCode": int(report.exit_code), "toolExecutionNotifications": notes}
