"""Whole-number arithmetic as rules write it: ``i+1``, ``3*i``, ``n_layer-1-i``, ``i//2``. Never run as code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ckpttool.errors import printable
from ckpttool.frozen import dataclass

LARGEST = 10**18
"""What an intermediate result may reach: sizes and indices stay far below it."""

DEPTH = 20

_TOKEN = re.compile(r"\s*(?:([0-9]{1,18})|([A-Za-z_][A-Za-z0-9_]*)|(//|[-+*%()]))")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written."""

    value: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A captured or given number, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Binary:
    """Two terms and one of ``+ - * // %`` between them."""

    sign: str
    left: Term
    right: Term


Term: TypeAlias = "Number | Variable | Binary"


class ArithmeticFault(ValueError):
    """A text is no arithmetic, or it has no value; the text says why."""


def parse_term(text: str) -> Term:
    """The term that a text spells. Raises ``ArithmeticFault``."""
    parser = _Parser(_tokens(text), text)
    term = parser.sum(0)
    if parser.peek():
        raise ArithmeticFault(f"'{printable(text)}' has '{printable(parser.peek())}' where it should end")
    return term


def variables(term: Term) -> tuple[str, ...]:
    """The names in a term, once for each mention."""
    if isinstance(term, Binary):
        return variables(term.left) + variables(term.right)
    return (term.name,) if isinstance(term, Variable) else ()


def evaluate(term: Term, values: Mapping[str, int]) -> int:
    """The term's value. Raises ``ArithmeticFault`` for a name without a value, and where there is no result."""
    if isinstance(term, Number):
        return term.value
    if isinstance(term, Variable):
        if term.name not in values:
            raise ArithmeticFault(f"'{term.name}' has no value here")
        return values[term.name]
    result = _combined(term.sign, evaluate(term.left, values), evaluate(term.right, values))
    if abs(result) > LARGEST:
        raise ArithmeticFault(f"{term_text(term)} is larger than {LARGEST:,}")
    return result


def solve(term: Term, name: str, result: int, values: Mapping[str, int]) -> int | None:
    """What ``name`` must be for the term to have this result; None where nothing or more than one thing fits.

    The name stands once in the term. ``//`` and ``%`` of it are never solved.
    """
    if isinstance(term, Variable):
        return result
    if not isinstance(term, Binary):
        return None
    inner, other = (term.left, term.right) if name in variables(term.left) else (term.right, term.left)
    wanted = _undone(term.sign, result, evaluate(other, values), inner is term.left)
    return None if wanted is None else solve(inner, name, wanted, values)


def solvable(term: Term, name: str) -> bool:
    """Whether ``solve`` can ever succeed: the name stands once, under ``+``, ``-`` and ``*`` alone."""
    if isinstance(term, Variable):
        return term.name == name
    if not isinstance(term, Binary) or variables(term).count(name) != 1 or term.sign not in "+-*":
        return False
    return solvable(term.left if name in variables(term.left) else term.right, name)


def term_text(term: Term) -> str:
    """The term as a person writes it, with the parentheses that it needs."""
    if isinstance(term, Number):
        return str(term.value)
    if isinstance(term, Variable):
        return term.name
    tight = term.sign not in "+-"
    left, right = term_text(term.left), term_text(term.right)
    if tight and isinstance(term.left, Binary) and term.left.sign in "+-":
        left = f"({left})"
    if isinstance(term.right, Binary) and (tight or term.right.sign in "+-"):
        right = f"({right})"
    return f"{left}{term.sign}{right}"


def _combined(sign: str, left: int, right: int) -> int:
    if sign in ("//", "%"):
        if right == 0:
            raise ArithmeticFault("division by 0")
        return left // right if sign == "//" else left % right
    return left + right if sign == "+" else left - right if sign == "-" else left * right


def _undone(sign: str, result: int, other: int, is_left: bool) -> int | None:
    """The operand that gives ``result`` with the other one."""
    if sign == "+":
        return result - other
    if sign == "-":
        return result + other if is_left else other - result
    if sign == "*" and other != 0 and result % other == 0:
        return result // other
    return None


def _tokens(text: str) -> list[str]:
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise ArithmeticFault(f"'{printable(text)}' is no arithmetic: numbers, names, + - * // % and ( )")
        found.append(match.group().strip())
        at = match.end()
    return found


class _Parser:
    """Recursive descent over tokens; levels of parentheses are limited."""

    def __init__(self, tokens: list[str], text: str) -> None:
        self.tokens, self.text, self.at = tokens, text, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def sum(self, depth: int) -> Term:
        return self.chain(("+", "-"), depth, self.product)

    def product(self, depth: int) -> Term:
        return self.chain(("*", "//", "%"), depth, self.atom)

    def chain(self, signs: tuple[str, ...], depth: int, below: Callable[[int], Term]) -> Term:
        term, length = below(depth), 0
        while self.peek() in signs:
            length += 1
            if length > DEPTH:
                raise ArithmeticFault(f"'{printable(self.text[:40])}…' has more than {DEPTH} terms")
            term = Binary(self.next(), term, below(depth))
        return term

    def atom(self, depth: int) -> Term:
        token = self.next()
        if depth > DEPTH:
            raise ArithmeticFault(f"'{printable(self.text[:40])}…' is nested deeper than {DEPTH}")
        if token == "(":
            term = self.sum(depth + 1)
            if self.next() != ")":
                raise ArithmeticFault(f"'{printable(self.text)}' lacks a closing parenthesis")
            return term
        if token == "-":
            inner = self.atom(depth + 1)
            return Number(-inner.value) if isinstance(inner, Number) else Binary("-", Number(0), inner)
        if token[:1].isdigit():
            return Number(int(token))
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise ArithmeticFault(f"'{printable(self.text)}' lacks a number or a name")
        return Variable(token)
