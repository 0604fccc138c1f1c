"""What takes the place of a node that torch refuses, and how that is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.model import Mapping, Node, Value

Op: TypeAlias = Literal["plain", "describe", "remove"]
"""``plain``: the data stays, the class goes. ``describe``: a text says what was there. ``remove``: it was unsafe."""


@dataclass(frozen=True, slots=True)
class Made:
    """A node, or the index of another one that says it all; what was there and what it became, in words.

    Nothing is told of what is ``same``: kept, and only spelled as torch wants it.
    """

    node: Node | int
    what: str = ""
    into: str = ""
    op: Op = "plain"

    @property
    def same(self) -> bool:
        return not self.what


def described(what: str) -> Made:
    """A text in the place of something that plain data cannot say."""
    return Made(Value(f"<{printable(what)}>"), what, "a text that names it", "describe")


def removed(what: str) -> Made:
    """A text in the place of something that nobody should load."""
    return Made(Value(f"<removed: {printable(what)}>"), what, "a text that names it", "remove")


def dict_of(pairs: Iterable[tuple[int, int]]) -> Mapping:
    """A dict of key and value nodes."""
    found = list(pairs)
    return Mapping("dict", tuple(key for key, _ in found), tuple(value for _, value in found))
