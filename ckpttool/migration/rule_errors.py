"""The error that a rules file can cause: where, which rule, what, and the keys that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from ckpttool.errors import printable
from ckpttool.folding import fold
from ckpttool.migration.errors import MigrationError

SHOWN = 4
"""Folded groups of keys that a message lists before it counts the rest."""

CANDIDATES = 3000
"""Keys that a nearest one is looked for among: the search is quadratic in their length."""

_DIGITS = re.compile("[0-9]+")


class RuleError(MigrationError):
    """A rules file makes no sense, or does not fit this checkpoint.

    ``file`` and ``line`` are where the rule stands (line 0: the file as a whole), ``rule`` is its text as a person
    wrote it, ``keys`` the checkpoint's keys that it is about and ``near`` the real keys nearest to what was asked.
    """

    def __init__(
        self, where: str, problem: str, *, rule: str = "", keys: Iterable[str] = (), near: Iterable[str] = ()
    ) -> None:
        file, _, line = where.rpartition(":")
        self.file, self.line = (file, int(line)) if line.isdecimal() and file else (where, 0)
        self.rule, self.problem = rule, problem
        self.keys, self.near = tuple(keys), tuple(near)
        said = f"{printable(rule)}: {problem}" if rule else problem
        hint = f"; nearest: {listed(self.near)}" if self.near else ""
        super().__init__(f"{printable(where)} – {said}{hint}")


def listed(keys: Iterable[str]) -> str:
    """Keys folded and quoted, the first few of them: ``'h.{0..11}.attn.bias' and 3 more``."""
    folds = fold((printable(key), None) for key in keys)
    shown = ", ".join(f"'{one.text}'" for one in folds[:SHOWN])
    rest = sum(one.count for one in folds[SHOWN:])
    return f"{shown} and {rest:,} more" if rest else shown


def nearest(wanted: str, names: Iterable[str], count: int = 2) -> tuple[str, ...]:
    """The names most like the wanted one, best first; none where nothing is alike."""
    return nearest_of(wanted, templates(names), count)


def templates(names: Iterable[str]) -> dict[str, str]:
    """The first of all names that differ in numbers alone, by what they have in common."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(_DIGITS.sub("0", name[:200]), name)
        if len(found) >= CANDIDATES:
            break
    return found


def nearest_of(wanted: str, known: Mapping[str, str], count: int = 2) -> tuple[str, ...]:
    """As ``nearest``, among what ``templates`` found."""
    text = _DIGITS.sub("0", wanted[:200])
    found = get_close_matches(text, known, count + 1, 0.6)
    return tuple(known[template] for template in found if known[template] != wanted)[:count]
