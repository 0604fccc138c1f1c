r"""Fold repetition in names: ``layers.{0..11}.attn.{q,k,v}.weight`` stands for 36 of them. Pure.

A pattern is a list of names written once. Its grammar, which ``unfold`` reads back:

- segments are joined by dots; a segment is text, or alternatives ``{a,b,c}``;
- an alternative ``3..11`` stands for the whole numbers from 3 to 11, both included;
- ``\`` comes before a ``{``, ``}``, ``,`` or ``\`` that belongs to a name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeAlias, TypeVar

from ckpttool.frozen import dataclass

Mark = TypeVar("Mark", bound=Hashable)
Segments: TypeAlias = "tuple[tuple[str, ...], ...]"
Row: TypeAlias = "tuple[Segments, int]"

ALTERNATIVES = 8
"""Names that one place may list beside each other; numbers are not limited, since ranges stay short."""

_NUMBER = re.compile(r"(?:^|(?<=\.))(0|[1-9][0-9]{0,17})(?=\.|\Z)")
"""A word that is how a whole number is written, and short enough to be an index."""

_TOKEN = re.compile(r"\\(.)|([{},.])|([^\\{},.]+)|(\\)", re.DOTALL)
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Fold(Generic[Mark]):
    """A set of names, the product of the alternatives in each segment, that share one mark."""

    segments: Segments
    mark: Mark

    @property
    def count(self) -> int:
        """How many names it stands for."""
        total = 1
        for alternatives in self.segments:
            total *= len(alternatives)
        return total

    @property
    def text(self) -> str:
        """The pattern as written."""
        return ".".join(segment_text(alternatives) for alternatives in self.segments)


def fold(names: Iterable[tuple[str, Mark]]) -> list[Fold[Mark]]:
    """Fold names with equal marks, in order of first appearance. Names count once; linear in their length.

    Numbers fold before words, so that a name which only one layer has does not keep the layers apart.
    """
    templates: dict[tuple[Mark, tuple[str, ...]], dict[tuple[str, ...], int]] = {}
    for place, (name, mark) in enumerate(names):
        pieces = _NUMBER.split(name)
        templates.setdefault((mark, tuple(pieces[::2])), {}).setdefault(tuple(pieces[1::2]), place)
    rows: dict[tuple[Mark, int], list[Row]] = {}
    for (mark, texts), found in templates.items():
        template = _template(texts)
        merged = _merge([(tuple([(n,) for n in numbers]), place) for numbers, place in found.items()], 0)
        rows.setdefault((mark, len(template)), []).extend((_filled(template, n), place) for n, place in merged)
    folds = [(place, Fold(one, mark)) for (mark, _), some in rows.items() for one, place in _merge(some, ALTERNATIVES)]
    return [one for _, one in sorted(folds, key=lambda pair: pair[0])]


def _template(texts: tuple[str, ...]) -> tuple[str | None, ...]:
    """The words of a name, None for each number: what stands before, between and behind its numbers, split again."""
    words: list[str | None] = []
    for place, text in enumerate(texts):
        behind, before = place > 0, place < len(texts) - 1
        if behind:
            words.append(None)
        # The dots beside numbers are no part of a word; one dot alone may part two numbers.
        if len(text) >= behind + before:
            words.extend(text[behind : len(text) - before].split("."))
    return tuple(words)


def unfold(pattern: str) -> Iterator[str]:
    """Every name that a pattern stands for."""
    return (".".join(parts) for parts in itertools.product(*_parse(pattern)))


def segment_text(alternatives: tuple[str, ...]) -> str:
    """One segment of a pattern: ``weight``, ``{q,k,v}`` or ``{0..11}``."""
    if len(alternatives) == 1:
        return _escape(alternatives[0])
    digits = [a for a in alternatives if _is_number(a)]
    words = [] if len(digits) == len(alternatives) else [_escape(a) for a in alternatives if not _is_number(a)]
    numbers = sorted(set(map(int, digits)))
    return "{" + ",".join([*_runs(numbers), *words]) + "}"


def _is_number(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None


def _filled(template: tuple[str | None, ...], numbers: Segments) -> Segments:
    left = iter(numbers)
    return tuple((word,) if word is not None else next(left) for word in template)


def _merge(rows: list[Row], most: int) -> list[Row]:
    """Unite rows that differ in one place only, place by place from the right.

    ``most`` words may stand beside each other; 0 says that there are only numbers.
    """
    for place in reversed(range(len(rows[0][0]))):
        groups: dict[Segments, list[tuple[tuple[str, ...], int]]] = {}
        for segments, first in rows:
            rest = (*segments[:place], *segments[place + 1 :])
            groups.setdefault(rest, []).append((segments[place], first))
        rows = [
            ((*rest[:place], alternatives, *rest[place:]), first)
            for rest, found in groups.items()
            for alternatives, first in _united(found, most)
        ]
    return rows


def _united(found: list[tuple[tuple[str, ...], int]], most: int) -> list[tuple[tuple[str, ...], int]]:
    """All alternatives as one, unless they are too many words to read."""
    if len(found) == 1:
        return found
    together = tuple(dict.fromkeys(itertools.chain.from_iterable([words for words, _ in found])))
    if most and sum(not _is_number(word) for word in together) > most:
        return found
    return [(together, min(first for _, first in found))]


def _runs(numbers: list[int]) -> Iterator[str]:
    """``0..11`` for runs of three and more."""
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield from [f"{members[0]}..{members[-1]}"] if len(members) > 2 else map(str, members)


def _escape(text: str) -> str:
    return re.sub(r"[{},\\]", r"\\\g<0>", text)


def _parse(pattern: str) -> list[list[str]]:
    """The alternatives of each segment."""
    segments: list[list[str]] = []
    words: list[str] = []
    text, inside = "", False
    for match in _TOKEN.finditer(pattern + "."):
        escaped, sign, run, lone = match.groups()
        if sign is None:
            text += escaped or run or lone
        elif sign == "." and inside:
            text += "."
        elif sign == "{":
            inside = True
        elif sign in ",}":
            words.extend(_alternative(text))
            text, inside = "", sign == ","
        else:
            segments.append(words or [text])
            words, text = [], ""
    return segments


def _alternative(text: str) -> Iterator[str]:
    span = _RANGE.fullmatch(text)
    return map(str, range(int(span[1]), int(span[2]) + 1)) if span else iter([text])
