"""Matching names against patterns, and writing names from what was matched. Linear in the names' length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault, Binary, Term, evaluate, solvable, solve, variables
from ckpttool.migration.patterns import Capture, Part, Pattern, PatternFault

Binding: TypeAlias = "dict[str, str]"
"""What a match knows: text by capture; of alternatives the position, of digits the digits."""

COUNTED = r"(0|[1-9][0-9]{0,17})"
"""A number that arithmetic may take: written the one way in which it is also printed."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A compiled pattern: ``match`` tells what a name's parts are.

    ``words`` are segments that every name has which fits, ``tail`` how it ends: cheap to look at first.
    """

    expression: re.Pattern[str]
    captures: tuple[Capture, ...]
    numbers: Mapping[str, int]
    words: tuple[str, ...]
    tail: str

    def match(self, name: str) -> Binding | None:
        """What the captures hold, None for a name that does not fit."""
        if not name.endswith(self.tail):
            return None
        found = self.expression.fullmatch(name)
        return None if found is None else self._bound(found.groups())

    def _bound(self, groups: tuple[str | None, ...]) -> Binding | None:
        binding: Binding = {}
        counted: list[tuple[Term, int]] = []
        for capture, text in zip(self.captures, groups, strict=True):
            if capture.term is not None:
                counted.append((capture.term, int(text or 0)))
                continue
            value = text or ""  # an open-ended part that took no segment
            if capture.kind == "choice":
                value = str(capture.choices.index(value)) if value in capture.choices else "?"
            if value == "?" or binding.setdefault(capture.key, value) != value:
                return None
        return binding if not counted or _solved(counted, binding, self.numbers) else None


@dataclass(frozen=True, slots=True)
class RegexMatcher:
    """A regular expression over whole names; its groups are known as ``\\1``, ``\\2``… and by their names."""

    expression: re.Pattern[str]
    words: tuple[str, ...] = ()

    def match(self, name: str) -> Binding | None:
        found = self.expression.fullmatch(name)
        if found is None:
            return None
        numbered = {str(place): text or "" for place, text in enumerate(found.groups(), 1)}
        return {**numbered, **{key: text or "" for key, text in found.groupdict().items()}}


def compile_pattern(pattern: Pattern, numbers: Mapping[str, int], counted: frozenset[str]) -> Matcher:
    """The matcher of a pattern whose given values are put in. ``counted`` captures are used in arithmetic.

    Raises ``PatternFault`` for arithmetic that cannot be undone: ``{i//2}`` without its ``{i%2}``.
    """
    _check_solvable(pattern, numbers)
    counted |= {name for c in pattern.captures if c.term is not None for name in variables(c.term)}
    return Matcher(
        re.compile(_regex(pattern, counted), re.DOTALL), pattern.captures, numbers, _words(pattern), _tail(pattern)
    )


def write(pattern: Pattern, binding: Binding, numbers: Mapping[str, int]) -> str:
    """The name that a pattern stands for. Raises ``ArithmeticFault`` where a number comes out below 0."""
    segments = []
    for segment in pattern.segments:
        text = "".join([part if isinstance(part, str) else _written(part, binding, numbers) for part in segment])
        if text or not (len(segment) == 1 and isinstance(segment[0], Capture) and segment[0].kind == "rest"):
            segments.append(text)
    return ".".join(segments)


def _written(capture: Capture, binding: Binding, numbers: Mapping[str, int]) -> str:
    if capture.term is not None:
        values = {**numbers, **{name: int(text) for name, text in binding.items() if text.isdecimal()}}
        number = evaluate(capture.term, values)
        if number < 0:
            raise ArithmeticFault(f"{capture.text} comes to {number}")
        return str(number)
    value = binding[capture.key]
    return capture.choices[int(value)] if capture.kind == "choice" else value


def _regex(pattern: Pattern, counted: frozenset[str]) -> str:
    """One group for each capture. An open-ended part takes the dot on one side of it along."""
    pieces: list[str] = []
    dotted = True  # no dot is due before the next segment
    last = len(pattern.segments) - 1
    for place, segment in enumerate(pattern.segments):
        if len(segment) == 1 and isinstance(segment[0], Capture) and segment[0].kind == "rest":
            pieces.append("(.*)" if dotted and place == last else "(?:(.+)\\.)?" if dotted else r"(?:\.(.+))?")
            continue
        if not dotted:
            pieces.append(r"\.")
        dotted = False
        pieces.extend(_piece(part, segment, counted) for part in segment)
    return "".join(pieces)


def _piece(part: Part, segment: tuple[Part, ...], counted: frozenset[str]) -> str:
    if isinstance(part, str):
        return re.escape(part)
    if part.kind == "choice":
        if part.choices[0].isdecimal() and len(part.choices) > 50:
            return "([0-9]+)"  # a long range is looked up after the match
        return "(" + "|".join(map(re.escape, part.choices)) + ")"
    if part.kind == "term":
        return COUNTED
    if part.kind == "digits":
        return COUNTED if part.key in counted else "([0-9]{1,18})"
    if part.kind == "glob":
        return "([^.]*)" if len(segment) > 1 else "([^.]+)"
    return "([^.]+)"


def _words(pattern: Pattern) -> tuple[str, ...]:
    """The segments that are literal: an index over names goes by them."""
    literal = [segment[0] for segment in pattern.segments if len(segment) == 1]
    return tuple(part for part in literal if isinstance(part, str) and "." not in part)


def _tail(pattern: Pattern) -> str:
    last = pattern.segments[-1]
    return last[-1] if last and isinstance(last[-1], str) else ""


# --- numbers that stand behind arithmetic ------------------------------------------------------------------------


def _check_solvable(pattern: Pattern, numbers: Mapping[str, int]) -> None:
    plain = {c.key for c in pattern.captures if c.kind == "digits"} | numbers.keys()
    terms = [c.term for c in pattern.captures if c.term is not None]
    known, changed = set(plain), True
    while changed:
        changed = False
        for term in [*terms, *(whole for whole, _ in _pairs([(t, 0) for t in terms], numbers))]:
            unknown = [name for name in variables(term) if name not in known]
            if len(unknown) == 1 and solvable(term, unknown[0]):
                known.add(unknown[0])
                changed = True
    for capture in pattern.captures:
        lost = [n for n in variables(capture.term) if n not in known] if capture.term is not None else []
        if lost:
            raise PatternFault(
                f"'{capture.text}' does not tell what {lost[0]} is; it can be told from sums and products,"
                f" and from {{{lost[0]}//2}} together with {{{lost[0]}%2}}"
            )


def _solved(counted: list[tuple[Term, int]], binding: Binding, numbers: Mapping[str, int]) -> bool:
    """Whether every term fits; what they tell is added to the binding."""
    values = {**numbers, **{name: int(text) for name, text in binding.items() if text.isdecimal()}}
    left = [*counted, *_pairs(counted, numbers)]
    try:
        while left:
            rest = []
            for term, result in left:
                unknown = {name for name in variables(term) if name not in values}
                if not unknown:
                    if evaluate(term, values) != result:
                        return False
                elif len(unknown) == 1 and solvable(term, name := unknown.pop()):
                    value = solve(term, name, result, values)
                    if value is None or value < 0:
                        return False
                    values[name] = value
                    binding[name] = str(value)
                else:
                    rest.append((term, result))
            if len(rest) == len(left):
                return False
            left = rest
    except ArithmeticFault:
        return False
    return True


def _pairs(counted: list[tuple[Term, int]], numbers: Mapping[str, int]) -> list[tuple[Term, int]]:
    """``x//n`` and ``x%n`` together tell x."""
    found = []
    for whole, quotient in counted:
        for part, remainder in counted:
            if (
                isinstance(whole, Binary) and isinstance(part, Binary) and (whole.sign, part.sign) == ("//", "%")
                and whole.left == part.left and whole.right == part.right
                and all(name in numbers for name in variables(whole.right))
            ):  # fmt: skip
                divisor = evaluate(whole.right, numbers)
                found.append((whole.left, quotient * divisor + remainder))
    return found
