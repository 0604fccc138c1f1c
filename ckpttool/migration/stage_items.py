"""What stages hand to each other: keys with how they follow from the input; and what is counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckpttool.expressions import Expression, Form
from ckpttool.migration.compiled import Compiled
from ckpttool.migration.guards import Surroundings, holds
from ckpttool.migration.matching import Binding
from ckpttool.migration.rule_nouns import Setting
from ckpttool.model import Scalar


@dataclass(frozen=True, slots=True)
class Item:
    """A key between two stages. ``tied`` names the key that it shares its storage with, ``replaces`` an input
    whose content that takes the place of."""

    name: str
    expression: Expression
    form: Form | None
    rules: tuple[int, ...] = ()
    tied: str = ""
    replaces: str = ""


@dataclass
class Tally:
    """What stages count: keys by rule, dropped items with the rule that dropped them, notes in words."""

    hits: Counter[int] = field(default_factory=Counter)
    dropped: list[tuple[Item, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Claim:
    """A rule that matches a name, by which of its sources, and what the match knows."""

    rule: Compiled
    source: int
    binding: Binding


@dataclass(frozen=True, slots=True)
class Context:
    """What guards may ask for beside names."""

    facts: Mapping[str, Scalar]
    versions: Mapping[str, Scalar]
    settings: Mapping[str, Setting]

    def around(self, items: Mapping[str, Item]) -> Surroundings:
        """The same with a stage's names."""
        forms = {name: item.form for name, item in items.items()}
        return Surroundings(forms, self.facts, self.versions, self.settings)


class Index:
    """Rules by the first segment of the names that they can match: few are tried for each name."""

    def __init__(self, rules: Sequence[Compiled]) -> None:
        self.entries = [(rule, place) for rule in rules for place in range(len(rule.matchers))]
        self.heads: dict[str, list[tuple[Compiled, int]]] = {}
        self.known = {rule.matchers[place].head for rule, place in self.entries}

    def claims(self, name: str, around: Surroundings | None) -> Iterator[Claim]:
        """Every rule that matches, in the file's order; without surroundings whatever its guard says."""
        for rule, place in self._candidates(name.partition(".")[0]):
            binding = rule.matchers[place].match(name)
            if binding is not None and (
                around is None or holds(rule.rule.when, rule.source, name, binding, around)
            ):
                yield Claim(rule, place, binding)

    def _candidates(self, head: str) -> list[tuple[Compiled, int]]:
        key = head if head in self.known else ""
        if key not in self.heads:
            self.heads[key] = [
                (rule, place) for rule, place in self.entries if rule.matchers[place].head in (None, key)
            ]
        return self.heads[key]
