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
    return {given.name: _value(given, rules, facts, settings) for given in rules.given}


def _value(
    given: Given, rules: RuleFile, facts: Mapping[str, Scalar], settings: Mapping[str, Setting]
) -> Setting:
    for value in (settings.get(given.name), facts.get(given.path) if given.path else None, given.default):
        if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 19:
            return int(value)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return value
    recorded = f"; the checkpoint has no plain value at {printable(given.path)}" if given.path else ""
    raise RuleError(
        rules.where, f"'{given.name}' has no value{recorded}: say it with --set {given.name}=VALUE"
    )
