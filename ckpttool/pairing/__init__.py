"""Which tensors of two checkpoints stand for each other. Pure: content is asked for, never read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

from ckpttool.changes import Pair, Pairing
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint
from ckpttool.pairing.contents import Content, Slices, by_content
from ckpttool.pairing.entries import Rest, entries, side_of
from ckpttool.pairing.places import Prefixes, by_place
from ckpttool.pairing.prefixes import by_prefix

if TYPE_CHECKING:
    from ckpttool.verbs.inventory import Item


def pair(
    a: Checkpoint,
    b: Checkpoint,
    layout_a: Layout,
    layout_b: Layout,
    items_a: Sequence[Item],
    items_b: Sequence[Item],
    content: Content,
    *,
    slices: Slices | None = None,
    infer: bool = True,
) -> Pairing:
    """Find a partner for every tensor that has one. Mirrors when the sides change places; linear for equal names.

    In this order, each step with what the one before left:

    - ``name``: equal paths; equal keys; equal names under another section's root (``moved``: the paths differ).
    - ``prefix``: equal names without wrappers' segments, or without one more prefix for all (listed in ``prefixes``).
    - ``content``: equal content, proved (score 1) where unique, below 1 where names had to help.
    - ``split``, ``concat``: one tensor is the other side's tensors one after another; it stands in one pair for each
      part, in the order of the parts. Needs ``slices``.
    - ``inferred``: type, shape, names and order. Never 1.

    ``content`` gives digests of node indices, as many as it can; ``slices(side, index, dim, cuts)`` those of
    ``[start, stop)`` along ``dim``, like ``content`` of the row-major bytes. Pairs come in a's order. State of an
    optimizer is paired by path and content only: whoever knows its parameters pairs it by them.
    """
    same, left_a, left_b = _equal_paths(items_a, items_b)
    rest: Rest = entries(left_a, layout_a), entries(left_b, layout_b)
    if not left_a or not left_b:
        return _sorted(same, [], rest)
    pairs, left, wrappers = by_place(rest)
    found, left, prefixes = by_prefix(left)
    pairs += found
    found, left = by_content(left, content, slices)
    pairs += found
    return _sorted(same, pairs, rest, (*wrappers, *prefixes))


def _equal_paths(
    items_a: Sequence[Item], items_b: Sequence[Item]
) -> tuple[list[tuple[int, Pair]], list[tuple[int, Item]], list[tuple[int, Item]]]:
    """Pairs of equal paths, and what is left, with places. Where a path stands twice, the last go together."""
    ours, theirs = _named(items_a), _named(items_b)
    if len(ours) != len(items_a) or len(theirs) != len(items_b):
        ours, theirs = _numbered(items_a), _numbered(items_b)
    pairs: list[tuple[int, Pair]] = []
    left: list[tuple[int, Item]] = []
    for name, one in ours.items():
        at, item = one
        other = theirs.get(name)
        if other is None:
            left.append(one)
        else:
            pairs.append((at, Pair(side_of(item), side_of(other[1]), "name")))
    alone = [] if len(pairs) == len(theirs) else [one for name, one in theirs.items() if name not in ours]
    return pairs, left, alone


def _named(items: Sequence[Item]) -> dict[Hashable, tuple[int, Item]]:
    return {item.path: (at, item) for at, item in enumerate(items)}


def _numbered(items: Sequence[Item]) -> dict[Hashable, tuple[int, Item]]:
    """By path and how many more of that path follow."""
    repeated: Counter[tuple[str, ...]] = Counter()
    found: dict[Hashable, tuple[int, Item]] = {}
    for at, item in reversed(list(enumerate(items))):
        found[item.path, repeated[item.path]] = at, item
        repeated[item.path] += 1
    return found


def _sorted(
    same: list[tuple[int, Pair]], pairs: Sequence[Pair], rest: Rest, prefixes: Prefixes = ()
) -> Pairing:
    """Pairs and the rest in the files' order; parts of one tensor stay in the order of the parts."""
    place = {id(one.side): one.at for one in rest[0]}
    gone = {id(side) for pair in pairs for side in (pair.a, pair.b)}
    placed = [*same, *((place[id(pair.a)], pair) for pair in pairs)]
    # Names in the file's order are there already; sorting them again is cheap.
    placed.sort(key=itemgetter(0))
    only_a, only_b = (tuple([one.side for one in sorted(ones, key=attrgetter("at")) if id(one.side) not in gone]) for ones in rest)
    return Pairing(tuple([pair for _, pair in placed]), only_a, only_b, prefixes)
