"""Rules printed as a file that reads back to the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ckpttool.migration.rule_nouns import Conditions, Given, Guard, Option, Rule, RuleFile
from ckpttool.migration.vocabulary import KINDS
from ckpttool.model import Scalar

Plain: TypeAlias = "None | bool | int | float | str | list[Plain] | dict[str, Plain]"

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def dump(rules: RuleFile) -> str:
    """The rules as a file's text: ``load(dump(r), r.where)`` has the same stages, given values and versions."""
    return "".join(f"{line}\n" for line in _lines(rules))


def _lines(rules: RuleFile) -> Iterator[str]:
    yield f"ckpttool: {rules.version}"
    for key, text in (("about", rules.about), ("from", rules.from_), ("to", rules.to)):
        if text:
            yield f"{key}: {_text(text)}"
    if rules.origin:
        yield f"source: {_flow(list(rules.origin))}"
    if rules.notes:
        yield f"notes: {_text(rules.notes)}"
    if rules.given:
        yield "given:"
        yield from (f"  {given.name}: {_flow(_given(given))}" for given in rules.given)
    if len(rules.stages) == 1:
        yield "rules:"
        yield from _rules(rules.stages[0].rules, "", "")
        return
    yield "stages:" + ("" if rules.stages else " []")
    for stage in rules.stages:
        yield from _rules(stage.rules, "- ", "  ")


def _rules(rules: Iterable[Rule], first: str, rest: str) -> Iterator[str]:
    """A list of rules; ``first`` stands before its very first line, ``rest`` before all others."""
    lead = first
    for rule in rules:
        mark = "- "
        for key, value in _fields(rule):
            yield f"{lead}{mark}{key}: {_flow(value)}"
            lead, mark = rest, "  "
    if lead == first and first:
        yield f"{first}[]"


def _fields(rule: Rule) -> Iterator[tuple[str, Plain]]:
    kind = KINDS[rule.kind]
    yield rule.kind, _own(rule)
    if kind.target and kind.name != "add":
        other = rule.sources if rule.kind == "tie" else rule.targets
        if other:
            yield kind.target, list(other) if kind.many == "targets" and len(other) > 1 else other[0]
    for name, value in rule.options:
        yield name, _option(value)
    if rule.when is not None:
        yield "when", _guard(rule.when)
    if rule.states_back:
        yield "reverse_when", "always" if rule.back is None else _guard(rule.back)
    if rule.optional:
        yield "optional", True
    if rule.scope != "weights":
        yield "in", rule.scope


def _own(rule: Rule) -> Plain:
    if rule.kind in ("add", "tie"):
        return rule.targets[0]
    if rule.regex:
        return {"regex": rule.sources[0]}
    return rule.sources[0] if len(rule.sources) == 1 else list(rule.sources)


def _option(value: Option) -> Plain:
    if isinstance(value, Conditions):
        return {name: _option(part) for name, part in value.items}
    return [_option(part) for part in value] if isinstance(value, tuple) else value


def _given(given: Given) -> Plain:
    if not given.paths and not given.about:
        return given.default
    found: dict[str, Plain] = {"about": given.about} if given.about else {}
    if given.paths:
        found["from"] = _few(list(given.paths))
    return found if given.default is None else {**found, "default": given.default}


def _guard(guard: Guard) -> Plain:
    found: dict[str, Plain] = {}
    for key, names in (("exists", guard.exists), ("missing", guard.missing), ("dtype", guard.dtype)):
        if names:
            found[key] = _few(list(names))
    if guard.shape is not None:
        found["shape"] = [_option(size) for size in guard.shape]
    for key, conditions in (("metadata", guard.metadata), ("version", guard.version)):
        if conditions:
            found[key] = {name: _few([_scalar(one) for one in wanted]) for name, wanted in conditions}
    return found


def _few(values: list[Plain]) -> Plain:
    return values[0] if len(values) == 1 else values


def _scalar(value: Scalar) -> Plain:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _flow(value: Plain) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if isinstance(value, (int, float)) else _text(value)


def _text(text: str) -> str:
    """A text as YAML: bare where it is a plain word, in quotes otherwise."""
    if _WORD.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    if "\\" in text and text.isprintable() and text.isascii():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _coded(c)) for c in text) + '"'


def _coded(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
