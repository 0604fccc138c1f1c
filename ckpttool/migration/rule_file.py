"""A rules file's text becomes a ``RuleFile``; every mistake is named with file, line and what is allowed instead."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.migration.compiled import check_rule
from ckpttool.migration.guards import read_guard
from ckpttool.migration.inversion import check_back
from ckpttool.migration.patterns import PatternFault
from ckpttool.migration.regexes import compiled
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import Given, Guard, Option, Rule, RuleFile, Scope, Stage
from ckpttool.migration.rule_values import SIZE, Reading, kind_of, meant
from ckpttool.migration.vocabulary import KINDS, Field, Kind
from ckpttool.migration.yaml_items import Item, Leaf, Listing, Table, read_yaml

LANGUAGE = 1
"""The version of the rule language that this package reads."""

KEYS = ("ckpttool", "about", "source", "notes", "given", "from", "to", "rules", "stages")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]+")


def load(text: str, where: str) -> RuleFile:
    """The rules in a text; ``where`` is the file's name for messages. Reads no file.

    Raises ``RuleError`` with file and line, the rule, what is allowed and the nearest word.
    """
    document = read_yaml(text, where)
    reading = Reading(where)
    if not isinstance(document, Table):
        raise reading.fault(document, f"the file holds {kind_of(document)}; it is a mapping with 'rules'")
    reading.check_keys(document, KEYS, "a rules file")
    _check_version(reading, document)
    given = _given(reading, document.get("given"))
    reading = Reading(where, frozenset(one.name for one in given))
    return RuleFile(
        stages=tuple(_stages(reading, document)),
        about=_text(reading, document, "about"),
        given=given,
        from_=_text(reading, document, "from"),
        to=_text(reading, document, "to"),
        origin=_texts(reading, document, "source"),
        notes=_text(reading, document, "notes"),
        where=where,
        text=text,
        version=LANGUAGE,
    )


def _text(reading: Reading, table: Table, key: str) -> str:
    item = table.get(key)
    return "" if item is None else reading.text(item, f"'{key}'")


def _texts(reading: Reading, table: Table, key: str) -> tuple[str, ...]:
    item = table.get(key)
    return () if item is None else reading.texts(item, f"'{key}'")


def _check_version(reading: Reading, document: Table) -> None:
    item = document.get("ckpttool")
    if item is None:
        raise reading.fault(document, "the version of the rule language is missing: begin with 'ckpttool: 1'")
    if not isinstance(item, Leaf) or item.value != LANGUAGE or isinstance(item.value, bool):
        raise reading.fault(
            item, f"'ckpttool' is {kind_of(item)}; this ckpttool reads version {LANGUAGE} of the rule language"
        )


def _given(reading: Reading, item: Item | None) -> tuple[Given, ...]:
    if item is None or (isinstance(item, Leaf) and item.value is None):
        return ()
    if not isinstance(item, Table):
        raise reading.fault(item, f"'given' is {kind_of(item)}; it is a mapping, as in {{n_layer: 12}}")
    return tuple(_one_given(reading, name, value) for name, value in item.items)


def _one_given(reading: Reading, name: str, item: Item) -> Given:
    if not _NAME.fullmatch(name) or SIZE.fullmatch(name):
        raise reading.fault(
            item,
            f"'{printable(name)}' cannot be given: names have two or more letters, digits or _;"
            " one letter is a captured number, d0 to d9 are a tensor's sizes",
        )
    if not isinstance(item, Table):
        return Given(name, _default(reading, name, item))
    reading.check_keys(item, ("default", "from", "about"), f"the given '{name}'")
    default = item.get("default")
    return Given(
        name,
        None if default is None else _default(reading, name, default),
        _texts(reading, item, "from"),
        _text(reading, item, "about"),
    )


def _default(reading: Reading, name: str, item: Item) -> int | float | str | None:
    """A number or a text; None, for nothing, makes it required."""
    if not isinstance(item, Leaf) or isinstance(item.value, bool):
        raise reading.fault(item, f"the given '{name}' is {kind_of(item)}; it is a number, a text or empty")
    return item.value


# --- stages ------------------------------------------------------------------------------------------------------


def _stages(reading: Reading, document: Table) -> Iterator[Stage]:
    rules, stages = document.get("rules"), document.get("stages")
    if (rules is None) == (stages is None):
        raise reading.fault(document, "a rules file has either 'rules', a list, or 'stages', a list of lists")
    for item in _list(reading, stages, "'stages'") if stages is not None else (rules,):
        if item is not None:
            found = [_rule(reading, rule) for rule in _list(reading, item, "a stage")]
            yield from map(Stage, _parts(found))


def _list(reading: Reading, item: Item, what: str) -> tuple[Item, ...]:
    if not isinstance(item, Listing):
        raise reading.fault(item, f"{what} is {kind_of(item)}; it is a list")
    return item.items


def _parts(rules: list[Rule]) -> Iterator[tuple[Rule, ...]]:
    """A strip is a stage of its own, and a stage speaks of one part of the checkpoint."""
    part: list[Rule] = []
    for rule in rules:
        alone = "strip" in (rule.kind, part[-1].kind if part else "")
        if part and (alone or rule.scope != part[-1].scope):
            yield tuple(part)
            part = []
        part.append(rule)
    if part:
        yield tuple(part)


# --- rules -------------------------------------------------------------------------------------------------------


def _rule(reading: Reading, item: Item) -> Rule:
    if not isinstance(item, Table):
        raise reading.fault(item, f"a rule is {kind_of(item)}; it is a mapping, as in {{rename: a, to: b}}")
    kind = _kind(reading, item)
    reading.check_keys(item, kind.keys, f"'{kind.name}'")
    sources, targets, regex = _sides(reading, item, kind)
    rule = Rule(
        kind.name, sources, targets, tuple(_options(reading, item, kind)), regex,
        when=_guard(reading, item, "when"),
        back=_guard(reading, item, "reverse_when"),
        states_back=item.get("reverse_when") is not None,
        optional=_flag(reading, item, "optional"),
        scope=_scope(reading, item),
        where=f"{reading.where}:{item.line}",
    )  # fmt: skip
    check_rule(rule, reading.given)
    check_back(rule, reading.given)
    return rule


def _kind(reading: Reading, item: Table) -> Kind:
    if not item.items:
        raise reading.fault(item, "a rule is empty")
    names = [key for key, _ in item.items if key in KINDS]
    scoped = {field for name in names for field in (KINDS[name].keys[1:])}
    kinds = [name for name in names if name not in scoped] or names
    if len(kinds) > 1:
        raise reading.fault(item, f"one rule is both '{kinds[0]}' and '{kinds[1]}'; write two")
    if not kinds:
        word = item.items[0][0]
        raise reading.fault(item, f"no rule is called '{printable(word)}'{meant(word, KINDS)}")
    return KINDS[kinds[0]]


def _sides(reading: Reading, item: Table, kind: Kind) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """The patterns of the names it takes and of those it makes; whether the first is a regular expression."""
    own = item.get(kind.name)
    other = item.get(kind.target) if kind.target else None
    assert own is not None
    if kind.target and other is None and kind.name != "slice":
        raise reading.fault(item, f"'{kind.name}' lacks '{kind.target}'")
    if kind.regex and isinstance(own, Table):
        reading.check_keys(own, ("regex",), f"the name in '{kind.name}'")
        targets = () if other is None else (reading.text(other, f"'{kind.target}'"),)
        return (_regex(reading, own),), targets, True
    if kind.name in ("add", "tie"):
        made = (reading.pattern(own, f"'{kind.name}'"),)
        return (() if other is None else (reading.pattern(other, "'to'"),)), made, False
    return _names(reading, own, kind, "sources"), _names(reading, other, kind, "targets"), False


def _names(reading: Reading, item: Item | None, kind: Kind, side: str) -> tuple[str, ...]:
    if item is None:
        return ()
    what = f"'{kind.name if side == 'sources' else kind.target}'"
    if kind.name == "strip":
        return reading.texts(item, what)
    return reading.patterns(item, what) if kind.many == side else (reading.pattern(item, what),)


def _regex(reading: Reading, table: Table) -> str:
    item = table.get("regex")
    if item is None:
        raise reading.fault(table, "a name is a pattern, or {regex: '…'}")
    text = reading.text(item, "'regex'")
    try:
        compiled(text)
    except PatternFault as fault:
        raise reading.fault(item, str(fault)) from None
    return text


def _options(reading: Reading, item: Table, kind: Kind) -> Iterator[tuple[str, Option]]:
    fields: dict[str, Field] = {field.name: field for field in kind.fields}
    for key, value in item.items:
        if key in fields:
            yield key, reading.option(fields[key], value)
    for field in kind.fields:
        if field.required and item.get(field.name) is None:
            raise reading.fault(item, f"'{kind.name}' lacks '{field.name}'")


def _guard(reading: Reading, item: Table, key: str) -> Guard | None:
    found = item.get(key)
    if found is None or (key == "reverse_when" and isinstance(found, Leaf) and found.text == "always"):
        return None
    return read_guard(reading, found, key)


def _flag(reading: Reading, item: Table, key: str) -> bool:
    found = item.get(key)
    return False if found is None else reading.flag(found, f"'{key}'")


def _scope(reading: Reading, item: Table) -> Scope:
    found = item.get("in")
    text = "weights" if found is None else reading.text(found, "'in'")
    if found is not None and text not in ("weights", "tree"):
        raise reading.fault(found, f"'in' is '{printable(text)}'; it is weights or tree")
    return "tree" if text == "tree" else "weights"


__all__ = ["RuleError", "load"]
