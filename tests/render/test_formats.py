"""Every format holds to its schema, and names from files stay names."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from ckpttool.errors import ExitCode
from ckpttool.model import Finding
from ckpttool.render import FORMATS, render
from ckpttool.render.markdown import escape
from ckpttool.render.sarif import fingerprint, uri
from ckpttool.report import Bars, Facts, Findings, Report, Subject, Table

if TYPE_CHECKING:
    import xmlschema

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("format_", FORMATS)
def test_no_control_character_gets_through(report: Report, format_: str) -> None:
    assert not CONTROL.search(render(report, format_))


@pytest.mark.parametrize("format_", FORMATS)
def test_every_finding_is_there(report: Report, format_: str) -> None:
    text = render(replace(report, data={"targets": ["CK102", "CK602"]}), format_)
    assert "CK102" in text
    assert "CK602" in text


@pytest.mark.parametrize("format_", FORMATS)
def test_a_report_of_nothing_renders(format_: str) -> None:
    assert isinstance(render(Report("verify", {}), format_), str)


def test_an_unknown_format_is_refused(report: Report) -> None:
    with pytest.raises(ValueError, match="pdf"):
        render(report, "pdf")


def test_json_is_the_contracts_object(report: Report) -> None:
    data = json.loads(render(report, "json"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (data["schema"], data["ok"], data["exit_code"]) == ("ckpttool.verify/1", False, 2)
    assert data["numbers"] == [1.0, "NaN", "Infinity", "-Infinity"]
    assert data["nested"] == {"x": "NaN"}


def test_json_has_an_element_of_a_list_on_each_line(report: Report) -> None:
    assert '\n    "NaN",\n' in render(report, "json")


def test_sarif_fits_its_schema(report: Report, sarif_schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    log = json.loads(render(report, "sarif"))
    jsonschema.Draft7Validator(sarif_schema).validate(log)
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert list(jsonschema.Draft7Validator(sarif_schema).iter_errors(log)), "the schema checks nothing"


def test_sarif_results_point_at_rules_that_explain_themselves(report: Report) -> None:
    (run,) = json.loads(render(report, "sarif"))["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    crc = next(rule for rule in rules if rule["id"] == "CK102")
    assert "**Remedy:** Take another copy." in crc["help"]["markdown"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "permission denied" in json.dumps(run["invocations"])


def test_sarif_fingerprints_outlive_reworded_messages() -> None:
    def of(where: str, message: str) -> str:
        return fingerprint(Subject("a/b.pt", "", ()), Finding("CK401", "nan", "error", where, message))

    assert of("w", "1 NaN") == of("w", "one NaN")
    assert of("w", "1 NaN") != of("v", "1 NaN")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs/a b.pt", "runs/a%20b.pt"),
        ("/x/é.pt", "file:///x/%C3%A9.pt"),
        ("s3://bucket/k.pt", "s3://bucket/k.pt"),
        ("a%b#c?.pt", "a%25b%23c%3F.pt"),
    ],
)
def test_paths_become_uris(path: str, expected: str) -> None:
    assert uri(path) == expected


def test_junit_fits_its_schema(report: Report, junit_schema: xmlschema.XMLSchema) -> None:
    text = render(report, "junit")
    junit_schema.validate(text.split("\n", 1)[1])
    assert not junit_schema.is_valid(text.split("\n", 1)[1].replace(" name=", " nom=")), "the schema checks nothing"


def test_junit_has_a_case_for_the_target_and_for_each_error(report: Report) -> None:
    root = ET.fromstring(render(report, "junit").split("\n", 1)[1])
    suites = root.findall("testsuite")
    assert [(s.get("tests"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("2", "2", "0"),
        ("1", "0", "1"),
        ("1", "0", "0"),
    ]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("4", "2", "1")


@pytest.mark.parametrize(("fail_on", "failures"), [("never", "0"), ("error", "2"), ("warning", "3"), ("info", "4")])
def test_junit_follows_fail_on(report: Report, fail_on: Any, failures: str) -> None:
    root = ET.fromstring(render(replace(report, fail_on=fail_on), "junit").split("\n", 1)[1])
    assert root[0].get("failures") == failures


def test_github_escapes_what_the_runner_would_act_on() -> None:
    finding = Finding("CK102", "crc-mismatch", "error", "w", "5% off:\nsee a, b", {}, "run: x")
    report = Report("verify", {}, (), ExitCode.FINDINGS, (Subject("a:b,c%.pt", "damaged", (finding,)),))
    assert render(report, "github") == (
        "::error file=a%3Ab%2Cc%25.pt,title=CK102 crc-mismatch::w – 5%25 off:\\nsee a, b%0A→ run: x\n"
    )


def test_github_has_one_line_for_each_finding(report: Report) -> None:
    lines = render(report, "github").splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning", "::notice", "::error"]


class Tags(HTMLParser):
    """Gathers the tags of a page, and whether they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.count[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_self_contained_and_well_formed(report: Report) -> None:
    page = render(report, "html")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.tags & {"script", "img", "link", "iframe", "a"}
    assert not tags.attributes & {"src", "href", "onerror"}
    assert "default-src 'none'" in page


def test_markdown_names_cannot_break_out(report: Report) -> None:
    tags = Tags()
    tags.feed(MarkdownIt("commonmark").enable("table").render(render(report, "markdown")))
    allowed = "h2 h3 p strong em table thead tbody tr th td code pre br details summary"
    assert tags.tags <= set(allowed.split())
    in_details = 1
    drawn = sum(isinstance(block, Bars) and not block.parts for block in report.blocks)
    tables = sum(kind in (Table, Facts, Bars, Findings) for kind in map(type, report.blocks)) + in_details - drawn
    assert tags.count["table"] == tables, "a name broke a table"


def test_markdown_text_mentions_and_links_nothing() -> None:
    text = escape("@admin #1 www.evil.example http://evil.example <b> `x` *y*")
    assert not re.search(r"@|(?<!\\)#1|www\.|://|<|(?<!\\)`", text)
