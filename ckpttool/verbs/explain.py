"""``explain``: a rule's page, or the list of all rules."""

from __future__ import annotations

from difflib import get_close_matches
from inspect import cleandoc

from ckpttool.checks import rule_of, rules
from ckpttool.errors import UsageError, printable
from ckpttool.model import Json
from ckpttool.report import Block, Facts, Report, Table, Text
from ckpttool.rules import SECTIONS, Rule

AXES = {
    "integrity": "integrity: bytes are not what was written",
    "safety": "safety: loading may run code",
    "hostile": "integrity and safety: two readers may see two different files",
    "none": "",
}
"""What an error of each axis says about the file."""


def explain(name: str | None = None) -> Report:
    """The page of the rule with this code or name; without one, every rule with its first line.

    Raises ``UsageError`` for an unknown one, with the nearest that exist. Reads no file.
    """
    return _list() if name is None else _page(find_rule(name))


def find_rule(name: str) -> Rule:
    """The rule with this code or name; raises ``UsageError`` with suggestions."""
    found = rule_of(name)
    if found is not None:
        return found
    known = [text for rule in rules().values() for text in (rule.code, rule.name)]
    wanted = name.strip()
    near = [*get_close_matches(wanted.upper(), known, 3), *get_close_matches(wanted.lower(), known, 3)]
    near += [text for text in known if len(wanted) > 2 and wanted.lower() in text][:3]
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    raise UsageError(f"no rule is called '{printable(wanted)}'{hint} (`ckpttool explain` lists all)")


def parts(rule: Rule) -> dict[str, str]:
    """A page's paragraphs by their names in lower case, each unwrapped to one line."""
    found = {}
    for paragraph in cleandoc(rule.page).split("\n\n"):
        head, _, rest = paragraph.partition(": ")
        if head in SECTIONS:
            found[head.lower()] = " ".join(rest.split())
    return found


def _list() -> Report:
    every = list(rules().values())
    data: list[Json] = [
        {"code": rule.code, "name": rule.name, "severity": rule.severity, "title": rule.title} for rule in every
    ]
    rows = tuple((f"{rule.code} {rule.name}", rule.severity, rule.title) for rule in every)
    blocks = (Table(("rule", "severity", "says that"), rows),)
    return Report("explain", {"rules": data}, blocks, rules=tuple(every))


def _page(rule: Rule) -> Report:
    paragraphs = parts(rule)
    facts = [("severity", rule.severity), ("axis", AXES[rule.axis]), ("needs", _needs(rule))]
    blocks: list[Block] = [
        Text(f"{rule.code} {rule.name}", "title"),
        Text(rule.title),
        Facts(tuple((label, value) for label, value in facts if value)),
    ]
    for name, text in paragraphs.items():
        blocks += [Text(name.capitalize(), "heading"), Text(text)]
    data: dict[str, Json] = {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity,
        "axis": rule.axis,
        "content": rule.content,
        "title": rule.title,
        **paragraphs,
    }
    return Report("explain", data, tuple(blocks), rules=(rule,))


def _needs(rule: Rule) -> str:
    return "the content; skipped by --headers-only" if rule.content else "headers only"
