"""Rules that were found as the text of a file: each with how sure it is and why. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ckpttool.errors import printable
from ckpttool.folding import fold
from ckpttool.migration.inference import Link, Question, Written
from ckpttool.migration.rule_nouns import Rule
from ckpttool.units import plural

WIDTH = 3
"""Reasons that a comment gives before it says that there are others."""


def file_text(
    rules: Sequence[Written],
    links: Sequence[Link],
    about: str,
    questions: Sequence[Question] = (),
    missing: Sequence[str] = (),
) -> str:
    """The rules as a file, each with how sure it is and why as a comment; what is open stands at the end."""
    known = {name: link for link in links for name in link.old}
    lines = ["ckpttool: 1", f"about: {_quoted(about)}"]
    lines += ["rules:"] if rules else ["rules: []"]
    for one in rules:
        lines += [f"# {line}" for line in _reasons(one, known)]
        lines += rule_lines(one.rule)
    for question in questions:
        lines += ["", f"# open: {printable(question.why)}"]
        lines += [f"# {line}" for line in question.rules]
    if missing:
        lines += ["", "# nothing leads to:"]
        lines += [f"#   {printable(folded.text)}" for folded in fold((name, None) for name in missing)]
    return "\n".join(lines) + "\n"


def _reasons(one: Written, known: Mapping[str, Link]) -> list[str]:
    names = [name for move in one.moves for name in move.old]
    keys = plural(len(names), "key")
    links = list(dict.fromkeys(known[name] for name in names if name in known))
    if not links:
        return [f"nothing in the target stands for {'it' if len(names) == 1 else 'them'} ({keys})"]
    sure = all(link.confidence == "certain" for link in links)
    lowest = min(link.score for link in links)
    whys = list(dict.fromkeys(link.why for link in links))
    told = "; ".join(whys[:WIDTH]) + ("; …" if len(whys) > WIDTH else "")
    return [printable(f"{'certain' if sure else f'likely, {lowest:.2f}'} ({keys}): {told}")]


def rule_lines(rule: Rule) -> list[str]:
    """A rule as YAML, an item of a list."""
    fields: list[tuple[str, object]] = []
    many = rule.kind in ("concat", "stack")
    fields.append((rule.kind, list(rule.sources) if many else rule.sources[0]))
    if rule.kind == "rename":
        fields.append(("to", rule.targets[0]))
    elif rule.targets:
        fields.append(("into", rule.targets[0] if many else list(rule.targets)))
    fields += rule.options
    texts = [f"{key}: {_quoted(value)}" for key, value in fields]
    return [f"- {texts[0]}", *(f"  {text}" for text in texts[1:])]


def _quoted(value: object) -> str:
    """JSON, which YAML reads; words of letters alone stand as they are."""
    if isinstance(value, str) and value.isascii() and value.isalnum() and not value[0].isdecimal():
        return value
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())
