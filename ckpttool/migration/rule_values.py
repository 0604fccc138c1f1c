"""Reading the values of a rule: what is allowed is said where it is not met. Every function raises ``RuleError``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from ckpttool.dtypes import DTYPES, dtype_of
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault, parse_term, variables
from ckpttool.migration.patterns import PatternFault, parse_pattern
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import Conditions, Option
from ckpttool.migration.vocabulary import KINDS, REVERSE, Field, Takes
from ckpttool.migration.yaml_items import Item, Leaf, Listing, Table

SIZE = re.compile(r"d[0-9]")
"""``d0`` is the size of the input's first dimension."""

_RATIO = re.compile(r"([A-Za-z_]\w*|[0-9.]+(?:e-?[0-9]+)?)(?:\s*/\s*([A-Za-z_]\w*|[0-9.]+(?:e-?[0-9]+)?))?")


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a value stands: the file, the rule's kind for messages, and the names of given values."""

    where: str
    given: frozenset[str] = frozenset()

    def fault(self, item: Item, problem: str) -> RuleError:
        """The error for something wrong with an item."""
        return RuleError(f"{self.where}:{item.line}", problem)

    def check_keys(self, table: Table, allowed: Iterable[str], what: str) -> None:
        """Refuse keys that are not allowed, with the one that was probably meant."""
        known = list(allowed)
        for key, item in table.items:
            if key not in known:
                raise self.fault(item, f"{what} has no '{printable(key)}'{meant(key, known)}")

    def text(self, item: Item, what: str) -> str:
        """A scalar as text, as it is written."""
        if not isinstance(item, Leaf) or (item.value is None and item.text != ""):
            raise self.fault(item, f"{what} is {kind_of(item)}; it is a text")
        return item.text

    def flag(self, item: Item, what: str) -> bool:
        if not isinstance(item, Leaf) or not isinstance(item.value, bool):
            raise self.fault(item, f"{what} is {kind_of(item)}; it is true or false")
        return item.value

    def many(self, item: Item) -> tuple[Item, ...]:
        """The items of a list; one alone is a list of one."""
        return item.items if isinstance(item, Listing) else (item,)

    def texts(self, item: Item, what: str) -> tuple[str, ...]:
        found = tuple(self.text(part, what) for part in self.many(item))
        if not found:
            raise self.fault(item, f"{what} is an empty list")
        return found

    def pattern(self, item: Item, what: str) -> str:
        """A pattern's text, checked."""
        text = self.text(item, what)
        try:
            parse_pattern(text, self.given)
        except PatternFault as fault:
            raise self.fault(item, str(fault)) from None
        return text

    def patterns(self, item: Item, what: str) -> tuple[str, ...]:
        self.texts(item, what)
        return tuple(self.pattern(part, what) for part in self.many(item))

    def whole(self, item: Item, what: str) -> int:
        value = item.value if isinstance(item, Leaf) else None
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 10**12:
            raise self.fault(item, f"{what} is {kind_of(item)}; it is a whole number")
        return value

    def term(self, item: Item, what: str) -> int | str:
        """A whole number, or arithmetic of given values and of ``d0``, ``d1``…, the input's sizes."""
        if isinstance(item, Leaf) and isinstance(item.value, int) and not isinstance(item.value, bool):
            return self.whole(item, what)
        text = self.text(item, what)
        try:
            unknown = [n for n in variables(parse_term(text)) if n not in self.given and not SIZE.fullmatch(n)]
        except ArithmeticFault as fault:
            raise self.fault(item, f"{what}: {fault}") from None
        if unknown:
            raise self.fault(
                item,
                f"{what} uses '{unknown[0]}', which is not under 'given'{meant(unknown[0], self.given)};"
                " sizes of the tensor are d0, d1, …",
            )
        return text

    def ratio(self, item: Item, what: str) -> int | float | str:
        """A number, a given one, or one divided by another."""
        if isinstance(item, Leaf) and isinstance(item.value, (int, float)) and not isinstance(item.value, bool):
            return item.value
        text = self.text(item, what)
        match = _RATIO.fullmatch(text)
        if match is None:
            raise self.fault(item, f"{what} is '{printable(text)}'; it is a number, a given one, or a / b")
        for name in match.groups():
            if name is None or name in self.given or SIZE.fullmatch(name):
                continue
            if not name[0].isdigit() and name[0] != ".":
                raise self.fault(item, f"{what} uses '{name}', which is not under 'given'{meant(name, self.given)}")
        return text

    def dtype(self, item: Item, what: str) -> str:
        text = self.text(item, what).removeprefix("torch.")
        found = dtype_of(text)
        if found is None:
            raise self.fault(item, f"{what} is '{printable(text)}', no element type{meant(text, DTYPES)}")
        return found.name

    def scalar(self, item: Item, what: str) -> bool | int | float | str:
        if not isinstance(item, Leaf) or item.value is None:
            raise self.fault(item, f"{what} is {kind_of(item)}; it is a number or a word")
        return item.value

    def option(self, field: Field, item: Item) -> Option:
        """The value of a rule's field, of the type that the field takes."""
        what = f"'{field.name}'"
        if field.takes == "word":
            return self._word(field, item, what)
        if field.takes in ("wholes", "terms", "names"):
            return self._list(field.takes, item, what)
        single: dict[str, Callable[[Item, str], Option]] = {
            "whole": self.whole, "term": self.term, "ratio": self.ratio, "scalar": self.scalar,
            "flag": self.flag, "dtype": self.dtype, "name": self.text, "table": self._table,
        }  # fmt: skip
        return single[field.takes](item, what)

    def _list(self, takes: Takes, item: Item, what: str) -> Option:
        if isinstance(item, Leaf) and item.text == "any" and what == "'sizes'":
            return "any"
        read = self.whole if takes == "wholes" else self.term if takes == "terms" else self.text
        if not isinstance(item, Listing):
            raise self.fault(item, f"{what} is {kind_of(item)}; it is a list, as in [2, 3]")
        return tuple(read(part, what) for part in item.items)

    def _word(self, field: Field, item: Item, what: str) -> str:
        text = self.text(item, what)
        if text not in field.choices:
            raise self.fault(item, f"{what} is '{printable(text)}'{meant(text, field.choices)}")
        return text

    def _table(self, item: Item, what: str) -> Option:
        """What a rule's inverse is made of: ``restore`` holds options of an ``add``, ``reverse`` another rename."""
        restores = what == "'restore'"
        if restores and isinstance(item, Leaf) and item.text == "nothing":
            return "nothing"
        if not isinstance(item, Table):
            allowed = "a mapping, as in {zeros_like: …}, or nothing" if restores else "a mapping"
            raise self.fault(item, f"{what} is {kind_of(item)}; it is {allowed}")
        fields = KINDS["add"].fields if restores else REVERSE
        self.check_keys(item, [field.name for field in fields], what)
        return Conditions(
            tuple((f.name, self.option(f, found)) for f in fields if (found := item.get(f.name)) is not None)
        )


def kind_of(item: Item) -> str:
    """What an item is, for messages."""
    if isinstance(item, Leaf):
        return "empty" if item.text == "" else f"'{printable(item.text[:60])}'"
    return "a list" if isinstance(item, Listing) else "a mapping"


def meant(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or what there is where nothing is near and the choice is small."""
    words = list(known)
    near = get_close_matches(word, words, 1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are {', '.join(sorted(words))}" if 0 < len(words) <= 40 else ""
