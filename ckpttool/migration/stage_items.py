"""What stages hand to each other: keys with how they follow from the input; and what is counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import TypeAlias

from ckpttool.expressions import Expression, Form
from ckpttool.frozen import dataclass
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
    """What stages count: keys by rule, dropped items with the rule that dropped them, notes in words.

    ``lonely`` and ``met`` are rules that decided nothing: those that look for keys which nobody has, and those whose
    keys are there while a guard or another rule holds them back.
    """

    hits: Counter[int] = field(default_factory=Counter)
    dropped: list[tuple[Item, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lonely: set[int] = field(default_factory=set)
    met: set[int] = field(default_factory=set)


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


Entry: TypeAlias = "tuple[Compiled, int]"


class Index:
    """Rules by a literal segment that every name which they match has: few are tried for each name."""

    def __init__(self, rules: Sequence[Compiled]) -> None:
        entries = [(rule, place) for rule in rules for place in range(len(rule.matchers))]
        shared = Counter(word for rule, place in entries for word in rule.matchers[place].words)
        self.order = {(rule.number, place): at for at, (rule, place) in enumerate(entries)}
        self.by_word: dict[str, list[Entry]] = {}
        self.open: list[Entry] = []
        for rule, place in entries:
            words = rule.matchers[place].words
            home = self.by_word.setdefault(min(words, key=shared.__getitem__), []) if words else self.open
            home.append((rule, place))
        self.known: dict[tuple[str, ...], list[Entry]] = {}

    def claims(self, name: str, around: Surroundings | None) -> Iterator[Claim]:
        """Every rule that matches, in the file's order; without surroundings whatever its guard says."""
        for rule, place in self._candidates(name):
            binding = rule.matchers[place].match(name)
            if binding is not None and (around is None or holds(rule.rule.when, rule.source, name, binding, around)):
                yield Claim(rule, place, binding)

    def _candidates(self, name: str) -> list[Entry]:
        by_word = self.by_word
        if not by_word:
            return self.open
        words = tuple([word for word in name.split(".") if word in by_word])
        if not words:
            return self.open
        if words not in self.known:
            found = [entry for word in dict.fromkeys(words) for entry in by_word[word]]
            self.known[words] = sorted([*self.open, *found], key=lambda entry: self.order[entry[0].number, entry[1]])
        return self.known[words]
