r"""Patterns of dotted names, as rules write them. Anchored: a pattern speaks of whole names, segment by segment.

================  =========================================================================================
``{i}``           digits; a name of one letter. ``{}`` is digits without a name
``{i+1}``         digits that are arithmetic of captured or given numbers: ``+ - * // %`` and parentheses
``{name}``        one segment, or the part of it between its neighbours; or a given number or text
``{rest...}``     any number of whole segments, also none; ``**`` is the same without a name
``{q|k|v}``       one of; alternatives may hold dots. On the right the same place takes the same position
``{0..11}``       one of these numbers
``*``             anything within a segment
``\{``            the character itself
================  =========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, TypeAlias

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault, Term, Variable, parse_term, variables

MAX_LENGTH = 2000
MAX_RANGE = 10_000
MAX_OPEN = 4
"""Open-ended parts (``**``, ``{rest...}``) of one pattern: each multiplies the ways in which a name may fit."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_TOKEN = re.compile(r"\\(.)|(\{(?:\\.|[^{}\\])*\})|(\*\*|\*|\.)|([^\\{}.*]+)|(.)", re.DOTALL)

Kind: TypeAlias = Literal["digits", "word", "rest", "glob", "choice", "term", "given"]


class PatternFault(ValueError):
    """A text is no pattern; the text says why."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A place in a pattern. ``key`` names what it takes; without a name it is ``#0``, ``#1``… by position."""

    kind: Kind
    key: str
    text: str
    choices: tuple[str, ...] = ()
    term: Term | None = None

    @property
    def anonymous(self) -> bool:
        return self.key.startswith("#")


Part: TypeAlias = "str | Capture"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Segments, each a run of literal text and captures."""

    text: str
    segments: tuple[tuple[Part, ...], ...]

    @property
    def captures(self) -> tuple[Capture, ...]:
        return tuple(part for segment in self.segments for part in segment if isinstance(part, Capture))

    @property
    def keys(self) -> tuple[str, ...]:
        """What a match of this pattern knows: the keys of its captures, names inside arithmetic included."""
        found: dict[str, None] = {}
        for capture in self.captures:
            names = (capture.key,) if capture.term is None else variables(capture.term)
            if capture.kind != "given":
                found.update(dict.fromkeys(names))
        return tuple(found)

    @property
    def literal(self) -> str | None:
        """The one name that it stands for; None where it has captures."""
        if self.captures:
            return None
        return ".".join("".join(str(part) for part in segment) for segment in self.segments)


def parse_pattern(text: str, given: frozenset[str] = frozenset()) -> Pattern:
    """The pattern that a text spells; names in ``given`` stand for their values. Raises ``PatternFault``."""
    if len(text) > MAX_LENGTH:
        raise PatternFault(f"the pattern has {len(text):,} characters; up to {MAX_LENGTH:,} are read")
    segments: list[list[Part]] = [[]]
    count = 0
    for match in _TOKEN.finditer(text):
        escaped, braced, sign, run, odd = match.groups()
        if odd is not None:
            raise PatternFault(f"'{printable(text)}' has a '{printable(odd)}' without its counterpart")
        if sign == ".":
            segments.append([])
            continue
        part = escaped if escaped is not None else run
        if part is None:
            part = _capture(braced or sign, f"#{count}", given)
            count += part.anonymous
        segments[-1].append(part)
    pattern = Pattern(text, tuple(tuple(_joined(segment)) for segment in segments))
    _check_open(pattern)
    return pattern


def escape(name: str) -> str:
    """The pattern that stands for this very name."""
    return re.sub(r"[{}*\\]", r"\\\g<0>", name)


def without_given(pattern: Pattern, values: dict[str, str | int | float]) -> Pattern:
    """The pattern with given texts and numbers put in; arithmetic keeps its names."""

    def filled(part: Part) -> Part:
        if isinstance(part, Capture) and part.kind == "given" and part.key in values:
            return str(values[part.key])
        return part

    segments = tuple(tuple(_joined([filled(p) for p in segment])) for segment in pattern.segments)
    return replace(pattern, segments=segments)


def resolve(pattern: Pattern, source: Pattern, *, strict: bool = True, mark: str = "") -> Pattern:
    """The pattern with its nameless captures bound to those of ``source``: same text first, then by position.

    Alternatives of another text take the place of the next ones that have equally many. Raises ``PatternFault``
    for a capture that the source has no counterpart for; unless ``strict``, such a one stays open, under a key
    of its own that holds ``mark``.
    """
    free = [c for c in source.captures if c.anonymous]
    bound: dict[str, str] = {}
    for same_text in (True, False):
        for capture in pattern.captures:
            if capture.anonymous and capture.key not in bound:
                found = next((c for c in free if _alike(capture, c, same_text)), None)
                if found is not None:
                    free.remove(found)
                    bound[capture.key] = found.key
    lacking = next((c for c in pattern.captures if c.anonymous and c.key not in bound), None)
    if lacking is not None and strict:
        raise PatternFault(
            f"'{printable(lacking.text)}' in '{printable(pattern.text)}' has no counterpart"
            f" in '{printable(source.text)}'"
        )
    return _rekeyed(pattern, bound, mark)


def _alike(capture: Capture, other: Capture, same_text: bool) -> bool:
    if same_text:
        return capture.text == other.text
    return capture.kind == other.kind == "choice" and len(capture.choices) == len(other.choices)


def _rekeyed(pattern: Pattern, keys: dict[str, str], mark: str) -> Pattern:
    def moved(part: Part) -> Part:
        if isinstance(part, Capture) and part.anonymous:
            return replace(part, key=keys.get(part.key, f"#{mark}{part.key}"))
        return part

    return replace(pattern, segments=tuple(tuple(map(moved, segment)) for segment in pattern.segments))


def _joined(parts: list[Part]) -> Iterator[Part]:
    """Neighbouring texts as one."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
        text = ""
        yield part
    if text:
        yield text


def _capture(text: str, key: str, given: frozenset[str]) -> Capture:
    """What stands in braces, or one of the stars."""
    if text in ("*", "**"):
        return Capture("rest" if text == "**" else "glob", key, text)
    inner = text[1:-1]
    if not inner.strip():
        return Capture("digits", key, text)
    if span := _RANGE.fullmatch(inner):
        return Capture("choice", key, text, _numbers(int(span[1]), int(span[2]), text))
    if "|" in inner:
        return Capture("choice", key, text, _alternatives(inner, text))
    name = inner.removesuffix("...")
    if _NAME.fullmatch(name):
        return _named(name, inner, text, given)
    try:
        term = parse_term(inner)
    except ArithmeticFault as fault:
        raise PatternFault(
            f"{fault}; braces hold a name, arithmetic, alternatives a|b, a range 0..11, or rest..."
        ) from None
    return _arithmetic(term, text, given)


def _named(name: str, inner: str, text: str, given: frozenset[str]) -> Capture:
    if inner.endswith("..."):
        if name in given:
            raise PatternFault(f"'{text}' is given a value and cannot stand for segments")
        return Capture("rest", name, text)
    if name in given:
        return Capture("given", name, text)
    return Capture("digits" if len(name) == 1 else "word", name, text)


def _arithmetic(term: Term, text: str, given: frozenset[str]) -> Capture:
    captured = {name for name in variables(term) if name not in given}
    wide = next((name for name in captured if len(name) > 1), None)
    if wide is not None:
        raise PatternFault(
            f"'{text}' counts with '{wide}', which stands for any segment: digits have names of one letter;"
            f" a given number is declared under 'given'"
        )
    if isinstance(term, Variable):
        return Capture("digits", term.name, text)
    return Capture("term", "", text, term=term)


def _numbers(first: int, last: int, text: str) -> tuple[str, ...]:
    if last < first or last - first >= MAX_RANGE:
        raise PatternFault(f"the range '{text}' does not count up, or holds more than {MAX_RANGE:,} numbers")
    return tuple(map(str, range(first, last + 1)))


def _alternatives(inner: str, text: str) -> tuple[str, ...]:
    choices = tuple(choice.strip() for choice in inner.split("|"))
    if any(not choice or "*" in choice for choice in choices):
        raise PatternFault(f"'{printable(text)}' has an alternative that is empty or holds a star")
    if len(set(choices)) != len(choices):
        raise PatternFault(f"'{printable(text)}' has the same alternative twice")
    return tuple(re.sub(r"\\(.)", r"\1", choice) for choice in choices)


def _check_open(pattern: Pattern) -> None:
    """``rest`` stands alone in its segment, and not too often."""
    for segment in pattern.segments:
        for part in segment:
            if isinstance(part, Capture) and part.kind == "rest" and len(segment) > 1:
                raise PatternFault(
                    f"'{part.text}' in '{printable(pattern.text)}' stands for whole segments: it needs dots around it"
                )
    count = sum(capture.kind == "rest" for capture in pattern.captures)
    if count > MAX_OPEN:
        raise PatternFault(f"'{printable(pattern.text)}' has {count} open-ended parts; up to {MAX_OPEN} are read")
