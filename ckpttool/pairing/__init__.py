"""Which tensors of two checkpoints stand for each other. Pure: content is asked for, never read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from ckpttool.changes import Pair, Pairing
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint
from ckpttool.pairing.contents import Content, Slices, by_content
from ckpttool.pairing.entries import Couple, Rest, entries, side_of
from ckpttool.pairing.guesses import mirrored
from ckpttool.pairing.parts import by_parts
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
    rest: Rest = entries(items_a, left_a, layout_a), entries(items_b, left_b, layout_b)
    if not left_a or not left_b:
        return _sorted(same, [], rest)
    pairs, left, wrappers = by_place(rest)
    found, left, prefixes = by_prefix(left)
    pairs += found
    found, left = by_content(left, content, slices)
    pairs += found
    if slices is not None and left[0] and left[1]:
        found, left = by_parts(left, content, slices)
        pairs += found
    if infer and left[0] and left[1]:
        ordered = layout_a.ordered and layout_b.ordered
        pairs += mirrored(left, _couples(pairs, rest), ordered)
    return _sorted(same, pairs, rest, (*wrappers, *prefixes))


def _couples(pairs: Sequence[Pair], rest: Rest) -> list[Couple]:
    """Pairs as the entries that they were made of."""
    known = {id(one.side): one for side in rest for one in side}
    return [(known[id(pair.a)], known[id(pair.b)]) for pair in pairs]


def _equal_paths(items_a: Sequence[Item], items_b: Sequence[Item]) -> tuple[dict[int, Pair], list[int], list[int]]:
    """Pairs of equal paths by a's place, and the places left. Where a path stands twice, the last go together."""
    ours, theirs = _places(items_a), _places(items_b)
    if len(ours) != len(items_a) or len(theirs) != len(items_b):
        ours, theirs = _numbered(items_a), _numbered(items_b)
    pairs = {
        at: Pair(side_of(items_a[at]), side_of(items_b[theirs[name]]), "name")
        for name, at in ours.items()
        if name in theirs
    }
    left_a = [at for at in ours.values() if at not in pairs] if len(pairs) < len(ours) else []
    left_b = [at for name, at in theirs.items() if name not in ours] if len(pairs) < len(theirs) else []
    return pairs, sorted(left_a), sorted(left_b)


def _places(items: Sequence[Item]) -> dict[Hashable, int]:
    return {item.path: at for at, item in enumerate(items)}


def _numbered(items: Sequence[Item]) -> dict[Hashable, int]:
    """By path and how many more of that path follow."""
    repeated: Counter[tuple[str, ...]] = Counter()
    found: dict[Hashable, int] = {}
    for at in reversed(range(len(items))):
        path = items[at].path
        found[path, repeated[path]] = at
        repeated[path] += 1
    return found


def _sorted(same: dict[int, Pair], pairs: Sequence[Pair], rest: Rest, prefixes: Prefixes = ()) -> Pairing:
    """Pairs and the rest in the files' order; parts of one tensor stay in the order of the parts."""
    if not pairs:
        together = [same[at] for at in sorted(same)]
    else:
        place = {id(one.side): one.at for one in rest[0]}
        placed = [*same.items(), *((place[id(pair.a)], pair) for pair in pairs)]
        together = [pair for _, pair in sorted(placed, key=itemgetter(0))]
    gone = {id(side) for pair in pairs for side in (pair.a, pair.b)}
    only_a, only_b = (tuple([one.side for one in ones if id(one.side) not in gone]) for ones in rest)
    return Pairing(tuple(together), only_a, only_b, prefixes)
