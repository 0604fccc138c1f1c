"""Regular expressions of rules: only those whose time is bounded by a small power of a name's length.

``re`` tries every way to divide a name among repetitions. A repetition inside a repetition takes twice as long with
each character more (``(\\w+)+``), unless a separator that the inner one cannot take stands at its end: ``(\\w+\\.)*``.
"""

from __future__ import annotations

import re
from dataclasses import field

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.patterns import PatternFault

MOST = 4
"""Open ends (``.*``, ``.+``) of one expression: each is one more power of the name's length."""

MANY = 16
"""Repetitions from which on a counted one is as good as an open one."""

_ATOM = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P?[<!=:>]?=?!?(?:[A-Za-z_]\w*>|<)?|\(|\)|\||[*+?][+?]?|\{\d*(?:,\d*)?\}|.",
    re.DOTALL,
)


@dataclass(slots=True)
class _Level:
    """What is known of a group that is still open: repeated atoms, the last atom, alternatives."""

    repeated: list[str] = field(default_factory=list)
    last: str = ""
    branches: bool = False
    nested: bool = False


def compiled(text: str) -> re.Pattern[str]:
    """The expression, to be matched against whole names. Raises ``PatternFault`` for what is none or may not end."""
    try:
        found = re.compile(text, re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternFault(f"this is no regular expression: {printable(str(error))}") from None
    why = _endless(text)
    if why:
        raise PatternFault(f"matching this regular expression may take for ever: {why}; patterns need none of it")
    return found


def _endless(text: str) -> str:
    """Why an expression may take too long; empty where it does not."""
    stack = [_Level()]
    ends = 0
    for atom in _ATOM.findall(text):
        here = stack[-1]
        if atom.startswith("("):
            stack.append(_Level())
        elif atom == ")" and len(stack) > 1:
            closed = stack.pop()
            stack[-1].last = ")"
            stack[-1].nested = _is_nested(closed)
            stack[-1].repeated += closed.repeated
        elif atom == "|":
            here.branches, here.last = True, ""
        elif not _is_quantifier(atom):
            here.last, here.nested = atom, False
        elif here.last:
            if _is_open(atom):
                if here.last == ")" and here.nested:
                    return "a repetition repeats one inside it"
                ends += here.last != ")" and all(_takes(here.last, character) for character in "a.")
                here.repeated.append(here.last)
            here.last = ""
    return f"it has {ends} open ends like .*, and {MOST} are the most" if ends > MOST else ""


def _is_nested(closed: _Level) -> bool:
    """Whether repeating this group would repeat a repetition, or alternatives that may overlap."""
    inner = [atom for atom in closed.repeated if atom != ")"]
    if closed.branches:
        return True
    if not closed.repeated:
        return False
    ends = _literal(closed.last)
    return ends is None or len(inner) < len(closed.repeated) or any(_takes(atom, ends) for atom in inner)


def _literal(atom: str) -> str | None:
    """The one character that an atom stands for; None where it stands for more."""
    if len(atom) == 2 and atom[0] == "\\" and not atom[1].isalnum():
        return atom[1]
    return atom if len(atom) == 1 and atom not in ".^$)" else None


def _takes(atom: str, character: str) -> bool:
    try:
        return re.fullmatch(atom, character, re.DOTALL) is not None
    except re.error:  # a group's number: it takes what that group took
        return True


def _is_quantifier(atom: str) -> bool:
    return atom[0] in "*+?" or (atom[0] == "{" and len(atom) > 1)


def _is_open(atom: str) -> bool:
    if atom[0] in "*+":
        return True
    return _is_quantifier(atom) and (
        atom.endswith(",}") or any(int(number) >= MANY for number in re.findall(r"\d+", atom))
    )
