"""``when:`` – reading guards, and deciding whether they hold for a match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from ckpttool.errors import printable
from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault, evaluate, parse_term
from ckpttool.migration.matching import Binding, compile_pattern, write
from ckpttool.migration.patterns import Pattern, escape, parse_pattern, resolve, without_given
from ckpttool.migration.rule_nouns import Guard, Option, Setting
from ckpttool.migration.rule_values import Reading, kind_of
from ckpttool.migration.yaml_items import Item, Leaf, Listing, Table
from ckpttool.model import Scalar

KEYS = ("exists", "missing", "shape", "dtype", "metadata", "version")

_COMPARISON = re.compile(r"(<=|>=|==|!=|<|>)\s*(.*)", re.DOTALL)
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


def read_guard(reading: Reading, item: Item, key: str) -> Guard:
    """The guard that an item spells. Raises ``RuleError``."""
    if not isinstance(item, Table) or not item.items:
        raise reading.fault(item, f"'{key}' is {kind_of(item)}; it is a mapping of {', '.join(KEYS)}")
    reading.check_keys(item, KEYS, f"'{key}'")
    given = dict(item.items)
    return Guard(
        exists=reading.patterns(given["exists"], "'exists'") if "exists" in given else (),
        missing=reading.patterns(given["missing"], "'missing'") if "missing" in given else (),
        shape=_shape(reading, given["shape"]) if "shape" in given else None,
        dtype=tuple(reading.dtype(i, "'dtype'") for i in reading.many(given["dtype"])) if "dtype" in given else (),
        metadata=_conditions(reading, given.get("metadata"), "metadata"),
        version=_conditions(reading, given.get("version"), "version"),
    )


def _shape(reading: Reading, item: Item) -> tuple[Option, ...]:
    """Sizes: numbers, arithmetic, or ``*`` for any."""
    if not isinstance(item, Listing):
        raise reading.fault(item, f"'shape' is {kind_of(item)}; it is a list, as in [2304, '*']")
    return tuple("*" if isinstance(i, Leaf) and i.text == "*" else reading.term(i, "'shape'") for i in item.items)


def _conditions(reading: Reading, item: Item | None, what: str) -> tuple[tuple[str, tuple[Scalar, ...]], ...]:
    if item is None:
        return ()
    if not isinstance(item, Table) or not item.items:
        raise reading.fault(item, f"'{what}' is {kind_of(item)}; it is a mapping, as in {{some.path: '<2'}}")
    for name, value in item.items:
        if what == "version":
            reading.pattern(Leaf(name, name, value.line), "a module's name")
        for part in reading.many(value):
            if not isinstance(part, Leaf):
                raise reading.fault(part, f"a condition on '{printable(name)}' is {kind_of(part)}")
    return tuple(
        (name, tuple(part.value for part in reading.many(value) if isinstance(part, Leaf)))
        for name, value in item.items
    )


@dataclass
class Surroundings:
    """What guards ask for: the stage's names with their forms, the facts around them, versions, given values."""

    forms: Mapping[str, Form | None]
    facts: Mapping[str, Scalar]
    versions: Mapping[str, Scalar]
    settings: Mapping[str, Setting]
    known: dict[str, bool] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, int]:
        return {name: value for name, value in self.settings.items() if isinstance(value, int)}

    def has(self, pattern: Pattern, binding: Binding) -> bool:
        """Whether a name fits the pattern with the binding's values in it."""
        bound = _put_in(pattern, binding, self.numbers)
        if bound.literal is not None:
            return bound.literal in self.forms
        if bound.text not in self.known:
            matcher = compile_pattern(bound, self.numbers, frozenset())
            self.known[bound.text] = any(matcher.match(name) is not None for name in self.forms)
        return self.known[bound.text]


def holds(guard: Guard | None, source: Pattern | None, name: str, binding: Binding, around: Surroundings) -> bool:
    """Whether every condition is met for a matched name."""
    if guard is None:
        return True
    return (
        all(around.has(_pattern(text, source, around), binding) for text in guard.exists)
        and not any(around.has(_pattern(text, source, around), binding) for text in guard.missing)
        and _fits(guard, around.forms.get(name), around.numbers)
        and all(_met(around.facts.get(path), wanted) for path, wanted in guard.metadata)
        and all(_version_met(text, wanted, source, binding, around) for text, wanted in guard.version)
    )


def _pattern(text: str, source: Pattern | None, around: Surroundings) -> Pattern:
    pattern = without_given(parse_pattern(text, frozenset(around.settings)), dict(around.settings))
    return pattern if source is None else resolve(pattern, source, strict=False)


def _put_in(pattern: Pattern, binding: Binding, numbers: Mapping[str, int]) -> Pattern:
    """The pattern with bound captures written out; others stay open."""
    segments = []
    for segment in pattern.segments:
        whole = Pattern("", (segment,))
        bound = segment if any(key not in binding for key in whole.keys) else (write(whole, binding, numbers),)
        if bound != ("",) or segment == ("",):
            segments.append(bound)
    text = ".".join("".join(escape(p) if isinstance(p, str) else p.text for p in segment) for segment in segments)
    return replace(pattern, text=text, segments=tuple(segments))


def _fits(guard: Guard, form: Form | None, numbers: Mapping[str, int]) -> bool:
    if form is None:
        return not guard.speaks_of_content
    if guard.dtype and form.dtype.name not in guard.dtype:
        return False
    if guard.shape is None:
        return True
    sizes = {**numbers, **{f"d{place}": size for place, size in enumerate(form.shape)}}
    return len(guard.shape) == len(form.shape) and all(
        wanted == "*" or _sized(wanted, sizes) == size for wanted, size in zip(guard.shape, form.shape, strict=True)
    )


def _sized(wanted: Option, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate(parse_term(str(wanted)), sizes)
    except ArithmeticFault:
        return None


def _version_met(
    text: str, wanted: Iterable[Scalar], source: Pattern | None, binding: Binding, around: Surroundings
) -> bool:
    """A module without a recorded version is older than any, as torch's own loading hooks see it."""
    bound = _put_in(_pattern(text, source, around), binding, around.numbers)
    if bound.literal is None:
        matcher = compile_pattern(bound, around.numbers, frozenset())
        return any(_met(v, wanted) for name, v in around.versions.items() if matcher.match(name) is not None)
    found = around.versions.get(bound.literal)
    return _met(found, wanted) or (found is None and _met(0, wanted))


def _met(found: Scalar, wanted: Iterable[Scalar]) -> bool:
    return any(_one_met(found, condition) for condition in wanted)


def _one_met(found: Scalar, condition: Scalar) -> bool:
    match = _COMPARISON.fullmatch(condition) if isinstance(condition, str) else None
    if match is None:
        return (type(found) is type(condition) and found == condition) or _text(found) == _text(condition)
    sign, text = match.groups()
    if sign in ("==", "!="):
        return (_text(found) == text) == (sign == "==")
    left, right = _ordered(found), _ordered(text)
    if left is None or right is None:
        return False
    width = max(len(left), len(right))
    a, b = left + (0.0,) * (width - len(left)), right + (0.0,) * (width - len(right))
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign]


def _text(value: Scalar) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(value: Scalar) -> tuple[float, ...] | None:
    """A number, or a version's numbers (``2.10.0+cu121`` is 2, 10, 0), for comparing."""
    if isinstance(value, (int, float)) and not isinstance(value, str):
        return (float(value),)
    match = _VERSION.match(value) if isinstance(value, str) else None
    return tuple(float(part) for part in match.group().split(".")[:6]) if match else None
