"""Which of several rules that say the same says no more than it should: tried name by name. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault
from ckpttool.migration.inference import Link, Written
from ckpttool.migration.matching import Binding, Matcher, compile_pattern, write
from ckpttool.migration.patterns import Pattern, parse_pattern, resolve
from ckpttool.migration.rule_nouns import Rule


@dataclass(frozen=True, slots=True)
class Choice:
    """A rule, and what says the same more narrowly, should it say too much."""

    now: Written
    narrower: tuple[Choice, ...] = ()


class _Tried:
    """A name rule as compiled patterns, to be tried on names."""

    def __init__(self, one: Written) -> None:
        self.one = one
        lead = parse_pattern(one.rule.sources[0])
        sources = [resolve(parse_pattern(text), lead) for text in one.rule.sources]
        self.literals = [source.literal for source in sources]
        self.sources = [_matcher(source, one.rule) for source in sources]
        self.target = resolve(parse_pattern(one.rule.targets[0]), lead) if one.rule.kind == "rename" else None
        self.moved = {name: move for move in one.moves for name in move.old}

    def says(self, name: str) -> tuple[str, ...] | None:
        """What becomes of a name; None where the rule does not speak of it."""
        for source in self.sources:
            binding = source.match(name)
            if binding is None:
                continue
            if self.target is not None:
                return (_name(self.target, binding),)
            return self.moved[name].new if name in self.moved else ("?",)
        return None


def _name(target: Pattern, binding: Binding) -> str:
    """What the rule makes of a name; a name that is nobody's where a number would be below 0."""
    try:
        return write(target, binding, {})
    except ArithmeticFault:
        return ""


def _matcher(pattern: Pattern, rule: Rule) -> Matcher:
    counted = frozenset(c.key for text in rule.targets for c in parse_pattern(text).captures if c.kind == "digits")
    arithmetic = any(c.term is not None for text in rule.targets for c in parse_pattern(text).captures)
    return compile_pattern(pattern, {}, counted if arithmetic else frozenset())


def settled(
    choices: Sequence[Choice], links: Sequence[Link], unused: Sequence[str], names: Sequence[str]
) -> tuple[Written, ...]:
    """The widest patterns under which every name becomes what it should; what is wrong is written more narrowly."""
    truth: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    truth |= {name: link.new for link in links for name in link.old} | dict.fromkeys(unused, ())
    chosen = list(choices)
    while True:
        chosen.sort(key=lambda choice: _specificity(choice.now.rule))
        wrong = _wrong([_Tried(choice.now) for choice in chosen], truth)
        if not any(chosen[place].narrower for place in wrong):
            return tuple(choice.now for choice in chosen)
        chosen = [
            one
            for place, choice in enumerate(chosen)
            for one in (choice.narrower if place in wrong and choice.narrower else (choice,))
        ]


def _wrong(tried: Sequence[_Tried], truth: Mapping[str, tuple[str, ...]]) -> set[int]:
    """The places of rules that decide some name wrongly. Exact names are looked up, not matched."""
    exact_names: dict[str, int] = {}
    patterns: list[int] = []
    for at, rule in enumerate(tried):
        if all(rule.literals):
            for name in rule.literals:
                exact_names.setdefault(name or "", at)
        else:
            patterns.append(at)
    wrong: set[int] = set()
    for name, wanted in truth.items():
        first = exact_names.get(name, len(tried))
        before = patterns[: bisect_left(patterns, first)]
        for at in [*before, first] if first < len(tried) else before:
            said = tried[at].says(name)
            if said is not None:
                if said != wanted:
                    wrong.add(at)
                break
    return wrong


def _specificity(rule: Rule) -> tuple[bool, bool, int, str]:
    """Narrow rules before wide ones: no open end, then what is dropped, then more segments."""
    source = rule.sources[0]
    return "{rest...}" in source, rule.kind != "drop", -source.count("."), source
