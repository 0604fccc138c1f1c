"""One tensor while it looks for its partner, and the ways in which two lists of them are matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ckpttool.changes import How, Pair, Side
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.model import Tensor
from ckpttool.pairing.names import WRAPPERS

if TYPE_CHECKING:
    from ckpttool.verbs.inventory import Item

Path: TypeAlias = "tuple[str, ...]"


@dataclass(frozen=True, slots=True, eq=False)
class One:
    """A tensor without a partner yet. ``at`` is its place in the file's order.

    ``root`` is the path of its section; ``words`` are the dotted segments of its key below the root without those
    of wrappers, ``worn`` the wrappers' segments of the whole key.
    """

    side: Side
    tensor: Tensor
    at: int
    root: Path
    words: Path
    worn: Path

    @property
    def name(self) -> str:
        return ".".join(self.words)


Couple: TypeAlias = "tuple[One, One]"
Rest: TypeAlias = "tuple[list[One], list[One]]"


def entries(items: Sequence[Item], places: Sequence[int], layout: Layout) -> list[One]:
    """The items at some places as entries; linear in their keys' lengths."""
    roots = {section.path for section in layout.sections if section.path}
    depths = range(max(map(len, roots), default=0), 0, -1)
    return [_entry(at, items[at], roots, depths) for at in places]


def _entry(at: int, item: Item, roots: set[Path], depths: range) -> One:
    path = item.path
    # The last segment names the tensor itself, so a section that is one tensor roots nothing.
    depth = next((n for n in depths if n < len(path) and path[:n] in roots), 0)
    words = item.key.split(".") if not depth else ".".join(path[depth:]).split(".")
    worn = () if WRAPPERS.isdisjoint(item.key.split(".")) else tuple([w for w in item.key.split(".") if w in WRAPPERS])
    bare = tuple([w for w in words if w not in WRAPPERS]) if worn else tuple(words)
    return One(side_of(item), item.tensor, at, path[:depth], bare, worn)


def side_of(item: Item) -> Side:
    """An item as one side of a pair."""
    return Side(item.key, item.path, item.index, item.section)


def joined(couple: Couple, how: How, score: float = 1.0) -> Pair:
    """Two entries as a pair."""
    return Pair(couple[0].side, couple[1].side, how, score)


def without(rest: Rest, couples: Sequence[Couple]) -> Rest:
    """What is left on both sides once some have found each other, in order."""
    if not couples:
        return rest
    gone_a, gone_b = {id(a) for a, _ in couples}, {id(b) for _, b in couples}
    return [one for one in rest[0] if id(one) not in gone_a], [one for one in rest[1] if id(one) not in gone_b]


def unique(rest: Rest, key: Callable[[One], Hashable]) -> list[Couple]:
    """Those whose key is theirs alone on both sides and equal; a key of None matches nothing."""
    left, right = _alone(rest[0], key), _alone(rest[1], key)
    return [(one, right[k]) for k, one in left.items() if k in right]


def _alone(ones: Iterable[One], key: Callable[[One], Hashable]) -> dict[Hashable, One]:
    keyed = [(key(one), one) for one in ones]
    counts = Counter(k for k, _ in keyed)
    return {k: one for k, one in keyed if k is not None and counts[k] == 1}
