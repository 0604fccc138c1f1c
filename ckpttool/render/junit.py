"""JUnit XML: a suite for each target, in it one case for the target and one for each finding that fails it.

Held to the schema of Jenkins' xUnit plugin (junit-10.xsd), which is also pytest's.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from ckpttool.errors import printable
from ckpttool.model import Finding
from ckpttool.render.common import fails, tally, worst_first
from ckpttool.report import Report, Subject

# What XML 1.0 cannot hold even escaped; printable leaves noncharacters such as U+FFFE to us.
_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """The report as one XML document."""
    root = ET.Element("testsuites", name=f"ckpttool {report.verb}")
    suites = [_suite(root, report, subject) for subject in report.subjects]
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, report: Report, subject: Subject) -> ET.Element:
    failing = [finding for finding in worst_first(subject.findings) if fails(finding, report)]
    suite = ET.SubElement(root, "testsuite", name=_clean(_name(subject)), skipped="0")
    suite.set("tests", str(1 + len(failing)))
    suite.set("failures", str(len(failing) + _failed(subject, failing)))
    suite.set("errors", str(int(bool(subject.error))))
    _target(suite, subject, failing)
    for finding in failing:
        _case(suite, subject, finding)
    return suite


def _target(suite: ET.Element, subject: Subject, failing: list[Finding]) -> None:
    case = ET.SubElement(suite, "testcase", classname=_clean(_name(subject)), name=f"verdict {_clean(subject.verdict)}")
    if subject.error:
        ET.SubElement(case, "error", type=_clean(subject.verdict), message=_clean(subject.error))
    elif _failed(subject, failing):
        message = f"{subject.verdict}: {tally(failing)}"
        ET.SubElement(case, "failure", type="verdict", message=_clean(message))
    rest = [finding for finding in worst_first(subject.findings) if finding not in failing]
    if rest:
        ET.SubElement(case, "system-out").text = "\n".join(map(_line, rest))


def _name(subject: Subject) -> str:
    return subject.name or subject.path


def _failed(subject: Subject, failing: list[Finding]) -> bool:
    return bool(failing) or (subject.failed and not subject.error)


def _case(suite: ET.Element, subject: Subject, finding: Finding) -> None:
    name = " ".join(filter(None, (finding.code, finding.name, _clean(finding.where))))
    case = ET.SubElement(suite, "testcase", classname=_clean(_name(subject)), name=name)
    failure = ET.SubElement(case, "failure", type=finding.code, message=_clean(finding.message))
    failure.text = _line(finding)


def _line(finding: Finding) -> str:
    parts = [f"{finding.severity} {finding.code} {finding.name}", finding.where, finding.message, finding.hint]
    return " – ".join(_clean(part) for part in parts if part)


def _clean(text: str) -> str:
    return _IMPOSSIBLE.sub("\ufffd", printable(text))
