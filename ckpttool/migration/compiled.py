"""Rules made ready to be matched: given values put in, names of both sides bound to each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault, evaluate, parse_term, variables
from ckpttool.migration.matching import Binding, Matcher, RegexMatcher, compile_pattern, write
from ckpttool.migration.patterns import Pattern, PatternFault, parse_pattern, resolve, without_given
from ckpttool.migration.regexes import compiled
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import Rule, Setting
from ckpttool.migration.vocabulary import KINDS, MAKES, Kind

_GROUP = re.compile(r"\\(?:([0-9]{1,2})|g<([A-Za-z_]\w*|[0-9]{1,2})>)")
_INDEXED = re.compile(r"(.*?)\s*\[([^\[\]]*)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Template:
    r"""The right side of a regular expression: text with ``\1`` and ``\g<name>``."""

    text: str

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(match[1] or match[2] for match in _GROUP.finditer(self.text))

    def write(self, binding: Binding) -> str:
        return _GROUP.sub(lambda match: binding[match[1] or match[2]], self.text)


Side: TypeAlias = "Pattern | Template"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule with its number in the file and its matchers, one for each source.

    ``shared`` are captures that tell one group of names from another; ``gathered`` those that count members of a
    group; ``spread`` is the one that counts the results of a single target, empty where none does.
    """

    rule: Rule
    number: int
    kind: Kind
    patterns: tuple[Pattern, ...]
    matchers: tuple[Matcher | RegexMatcher, ...]
    targets: tuple[Side, ...]
    numbers: Mapping[str, int]
    settings: Mapping[str, Setting]
    shared: tuple[str, ...] = ()
    gathered: tuple[tuple[str, ...], ...] = ()
    spread: str = ""

    @property
    def role(self) -> str:
        """That of its kind; a slice under a name of its own takes nothing away."""
        return "extra" if self.rule.kind == "slice" and self.targets else self.kind.role

    @property
    def source(self) -> Pattern | None:
        """The pattern that a guard's patterns look to; None for a regular expression."""
        return self.patterns[0] if self.patterns else None

    def name(self, target: Side, binding: Binding, key: str) -> str:
        """A name that the rule makes of ``key``. Raises ``RuleError`` where its arithmetic has no result."""
        try:
            return target.write(binding) if isinstance(target, Template) else write(target, binding, self.numbers)
        except ArithmeticFault as fault:
            raise self.fault(str(fault), key) from None

    def fault(self, problem: str, *keys: str, near: tuple[str, ...] = ()) -> RuleError:
        """The error of this rule."""
        about = f" (key '{printable(keys[0])}')" if len(keys) == 1 else ""
        return RuleError(self.rule.where, problem + about, rule=self.rule.text, keys=keys, near=near)


def compile_rule(rule: Rule, number: int, settings: Mapping[str, Setting]) -> Compiled:
    """The rule made ready. Raises ``RuleError`` where its sides do not fit each other."""
    kind = KINDS[rule.kind]
    numbers = {name: v for name, v in settings.items() if isinstance(v, int) and not isinstance(v, bool)}
    try:
        if rule.regex:
            return _compiled_regex(rule, number, kind, numbers, settings)
        return _compiled(rule, number, kind, numbers, settings)
    except (PatternFault, ArithmeticFault) as fault:
        raise RuleError(rule.where, str(fault), rule=rule.text) from None


def check_rule(rule: Rule, given: frozenset[str]) -> None:
    """Raise ``RuleError`` where a rule makes no sense whatever values are given."""
    compile_rule(rule, 0, dict.fromkeys(given, 2))
    if rule.kind == "add":
        found = [name for name in MAKES if rule.has(name)]
        if len(found) != 1:
            said = f"says both '{found[0]}' and '{found[1]}'" if found else "does not say what to make"
            raise RuleError(rule.where, f"{said}: one of {', '.join(MAKES)}", rule=rule.text)
        if found == ["full"] and not rule.has("shape") and not rule.has("like"):
            raise RuleError(rule.where, "'full' needs a 'shape' or a 'like'", rule=rule.text)
    if rule.kind in ("split", "concat") and rule.has("sizes") and rule.has("sections"):
        raise RuleError(rule.where, "says both 'sizes' and 'sections'; one is enough", rule=rule.text)


def indexed(text: str) -> tuple[str, str | None]:
    """A name and the index behind it: ``head.weight[:, 0]`` gives ``head.weight`` and ``:, 0``."""
    match = _INDEXED.fullmatch(text)
    return (text, None) if match is None else (match[1], match[2])


def pattern_of(text: str, settings: Mapping[str, Setting]) -> Pattern:
    """The pattern with given values in it. Raises ``PatternFault``."""
    return without_given(parse_pattern(text, frozenset(settings)), dict(settings))


def made_from(rule: Rule) -> tuple[str, ...]:
    """The names that a rule matches: its sources; for ``add`` the tensor that it makes another one like."""
    if rule.kind != "add":
        return rule.sources
    found = [str(rule.option(name)) for name in ("zeros_like", "ones_like", "copy", "like", "for") if rule.has(name)]
    return (indexed(found[0])[0],) if found else ()


def _compiled_regex(
    rule: Rule, number: int, kind: Kind, numbers: Mapping[str, int], settings: Mapping[str, Setting]
) -> Compiled:
    matcher = RegexMatcher(compiled(rule.sources[0]))
    targets = tuple(Template(target) for target in rule.targets)
    groups = {str(i) for i in range(1, matcher.expression.groups + 1)} | matcher.expression.groupindex.keys()
    for target in targets:
        lacking = [key for key in target.keys if key not in groups]
        if lacking:
            raise PatternFault(f"'{printable(target.text)}' asks for group {lacking[0]}, which there is not")
    return Compiled(rule, number, kind, (), (matcher,), targets, numbers, settings)


def _compiled(
    rule: Rule, number: int, kind: Kind, numbers: Mapping[str, int], settings: Mapping[str, Setting]
) -> Compiled:
    if kind.role == "strip":
        return Compiled(rule, number, kind, (), (), (), numbers, settings)
    patterns = [pattern_of(text, settings) for text in made_from(rule)]
    reference = patterns[0] if patterns else Pattern("", ((),))
    patterns = [
        pattern if place == 0 else resolve(pattern, reference, strict=False, mark=str(place))
        for place, pattern in enumerate(patterns)
    ]
    spreads = rule.kind in ("split", "unstack") and len(rule.targets) == 1
    targets = tuple(resolve(pattern_of(text, settings), reference, strict=not spreads) for text in rule.targets)
    spread = _spread(rule, reference, targets) if spreads else ""
    counted = frozenset(
        name for p in (*patterns, *targets) for c in p.captures if c.term is not None for name in variables(c.term)
    )
    matchers = tuple(compile_pattern(pattern, numbers, counted) for pattern in patterns)
    _check_keys(patterns, targets, spread, numbers)
    shared = _keys(targets[0], numbers) if targets and kind.many == "sources" else ()
    gathered = tuple(tuple(k for k in _keys(p, numbers) if k not in shared) for p in patterns)
    return Compiled(rule, number, kind, tuple(patterns), matchers, targets, numbers, settings, shared, gathered, spread)


def _keys(pattern: Pattern, numbers: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(key for key in pattern.keys if key not in numbers)


def _spread(rule: Rule, source: Pattern, targets: tuple[Pattern, ...]) -> str:
    """The capture that numbers the results of one target."""
    fresh = [key for key in targets[0].keys if key not in source.keys and not key.startswith("#")]
    if len(fresh) != 1:
        raise PatternFault(
            f"one name for several results needs one new number in it, as in 'experts.{{e}}.weight';"
            f" '{printable(rule.targets[0])}' has {len(fresh)}"
        )
    return fresh[0]


def _check_keys(patterns: list[Pattern], targets: tuple[Pattern, ...], spread: str, numbers: Mapping[str, int]) -> None:
    for pattern in patterns or [Pattern("", ((),))]:
        known = {*pattern.keys, spread, *numbers}
        for target in targets:
            lacking = next((key for key in target.keys if key not in known), None)
            if lacking is not None:
                shown = next((c.text for c in target.captures if c.key == lacking), "{" + lacking + "}")
                if not patterns:
                    raise PatternFault(f"nothing tells what {shown} is: say 'for' which names there are")
                raise PatternFault(f"{shown} in '{printable(target.text)}' is not in '{printable(pattern.text)}'")


def term_of(value: object, numbers: Mapping[str, int], shape: tuple[int, ...]) -> int:
    """A size that a rule writes: a number, or arithmetic of given values and ``d0``, ``d1``…

    Raises ``ArithmeticFault``.
    """
    sizes = {f"d{place}": size for place, size in enumerate(shape)}
    return value if isinstance(value, int) else evaluate(parse_term(str(value)), {**numbers, **sizes})
