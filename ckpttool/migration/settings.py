"""The values of given names: what the command line says, else what the checkpoint records, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from ckpttool.errors import printable
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import Given, RuleFile, Setting
from ckpttool.model import Scalar


def settle(
    rules: RuleFile, facts: Mapping[str, Scalar], settings: Mapping[str, Setting]
) -> dict[str, Setting]:
    """Every given name with its value. Texts that spell a whole number are numbers.

    Raises ``RuleError`` for a setting that the rules do not know, and for a required value that nothing tells.
    """
    for name in settings:
        if name not in rules.names:
            near = get_close_matches(name, rules.names, 1)
            known = ", ".join(sorted(rules.names)) or "none"
            hint = f"; did you mean '{near[0]}'?" if near else f"; given names: {known}"
            raise RuleError(rules.where, f"'{printable(name)}' is not a given name of these rules{hint}")
    found: dict[str, Setting] = {}
    for given in rules.given:
        found[given.name] = _value(given, rules, facts, {**found, **settings}, settings.get(given.name))
    return found


def _value(
    given: Given,
    rules: RuleFile,
    facts: Mapping[str, Scalar],
    known: Mapping[str, Setting],
    said: Setting | None,
) -> Setting:
    default = given.default
    if isinstance(default, str) and default in rules.names:
        default = known.get(default)  # another given value, which stands before this one
    for value in (said, *(facts.get(path) for path in given.paths), default):
        if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 19:
            return int(value)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return value
    what = f" ({printable(given.about)})" if given.about else ""
    places = (
        f"; the checkpoint does not record it as {printable(' or '.join(given.paths))}" if given.paths else ""
    )
    raise RuleError(
        rules.where, f"'{given.name}'{what} has no value{places}: say it with --set {given.name}=VALUE"
    )
