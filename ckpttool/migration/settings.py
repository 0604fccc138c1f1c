"""The values of given names: what the command line says, else what the checkpoint records, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import Given, RuleFile, Setting
from ckpttool.model import Scalar

SAID = "--set"
"""The source of a value that the user says."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A given name with its value and where that comes from: ``--set``, a key of the checkpoint, or ``default``."""

    name: str
    value: Setting
    source: str


def settle(rules: RuleFile, facts: Mapping[str, Scalar], settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Every given name with its value; raises what ``settled`` raises."""
    return {one.name: one.value for one in settled(rules, facts, settings)}


def settled(rules: RuleFile, facts: Mapping[str, Scalar], settings: Mapping[str, Setting]) -> tuple[Settled, ...]:
    """Every given name with its value and its source. Texts that spell a whole number are numbers.

    Raises ``RuleError`` for a setting that the rules do not know, and for a required value that nothing tells.
    """
    for name in settings:
        if name not in rules.names:
            near = get_close_matches(name, rules.names, 1)
            known = ", ".join(sorted(rules.names)) or "none"
            hint = f"; did you mean '{near[0]}'?" if near else f"; given names: {known}"
            raise RuleError(rules.where, f"'{printable(name)}' is not a given name of these rules{hint}")
    found: dict[str, Settled] = {}
    for given in rules.given:
        known_values = {**{name: one.value for name, one in found.items()}, **settings}
        found[given.name] = _settled(given, rules, facts, known_values, settings.get(given.name))
    return tuple(found.values())


def _settled(
    given: Given, rules: RuleFile, facts: Mapping[str, Scalar], known: Mapping[str, Setting], said: Setting | None
) -> Settled:
    default = given.default
    if isinstance(default, str) and default in rules.names:
        default = known.get(default)  # another given value, which stands before this one
    told = [(said, SAID), *((facts.get(path), path) for path in given.paths), (default, "default")]
    for value, source in told:
        if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 19:
            return Settled(given.name, int(value), source)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return Settled(given.name, value, source)
    what = f" ({printable(given.about)})" if given.about else ""
    places = f"; the checkpoint does not record it as {printable(' or '.join(given.paths))}" if given.paths else ""
    raise RuleError(rules.where, f"'{given.name}'{what} has no value{places}: say it with --set {given.name}=VALUE")
