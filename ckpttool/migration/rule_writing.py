"""Links written as few rules that say exactly the same, checked name by name. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ckpttool.expressions import Op
from ckpttool.folding import fold
from ckpttool.migration.inference import Link, Move, Written
from ckpttool.migration.matching import compile_pattern
from ckpttool.migration.patterns import PatternFault, escape, parse_pattern
from ckpttool.migration.rule_choosing import Choice, settled
from ckpttool.migration.rule_nouns import Option, Rule
from ckpttool.migration.templates import LETTERS, Shape, by_core, by_module, exact, leaves_of, shapes, under
from ckpttool.ops import Cast, Concat, Reshape, Split, Stack, Unstack


def written(
    links: Sequence[Link], unused: Sequence[str], names: Sequence[str], casts: Mapping[str, Op]
) -> tuple[Written, ...]:
    """The rules that turn ``names`` into what the links say: first those that change contents, then those for names.

    ``unused`` are dropped, ``casts`` are changes of element type by old name. Each pattern was tried on every name.
    """
    contents = _contents(links, casts, names)
    choices = [*_drops(unused, names), *_joins(links), *_renames(links)]
    return (*contents, *settled(choices, links, unused, names))


# --- rules of each kind ------------------------------------------------------------------------------------------


def _renames(links: Sequence[Link]) -> Iterator[Choice]:
    """Renames of whole trees; where that says too much, of modules; of their listed tensors; of single ones."""
    moves = [Move(one.old, one.new) for one in links if len(one.old) == len(one.new) == 1 and one.old != one.new]
    for some in by_core(shapes(moves)):
        modules = [_module(shapes_of) for shapes_of in by_module(some)]
        wide = under(some)
        yield from [Choice(_rename(wide), tuple(modules))] if wide and len(some) > 1 else modules


def _module(some: Sequence[Shape]) -> Choice:
    """The rename of a module's tensors."""
    singles = tuple(_narrow(shape, _rename(shape), _rename) for shape in some)
    listed = leaves_of(some)
    if listed is None:
        return singles[0] if len(singles) == 1 else Choice(_rename(some[0]), singles)
    if len(some) == 1:
        return singles[0]
    tree = under(some)
    by_leaf = Choice(_rename(listed), singles)
    return by_leaf if tree is None else Choice(_rename(tree), (by_leaf,))


def _narrow(shape: Shape, now: Written, write_one: Callable[[Shape], Written]) -> Choice:
    """A rule for layers, or else one for each of them."""
    if len(shape.moves) == 1:
        return Choice(now)
    return Choice(now, tuple(Choice(write_one(exact(move))) for move in shape.moves))


def _rename(shape: Shape) -> Written:
    return Written(Rule("rename", shape.old, shape.new), shape.moves)


def _joins(links: Sequence[Link]) -> Iterator[Choice]:
    """Splits, concatenations and stacks: one rule for all layers, or one for each."""
    groups: dict[Op, list[Move]] = defaultdict(list)
    for link in links:
        if link.op is not None and isinstance(link.op, (Split, Concat, Stack, Unstack)):
            groups[link.op].append(Move(link.old, link.new))
    for op, moves in groups.items():
        for shape in shapes(moves):
            yield _narrow(shape, _join(shape, op), partial(_join, op=op))


def _join(shape: Shape, op: Op) -> Written:
    options: list[tuple[str, Option]] = [("dim", getattr(op, "dim", 0))]
    if isinstance(op, Split) and op.sizes:
        options.append(("sizes", tuple(op.sizes)))
    return Written(Rule(op.name, shape.old, shape.new, tuple(options)), shape.moves)


def _drops(unused: Sequence[str], names: Sequence[str]) -> Iterator[Choice]:
    """Whole modules where nothing of them is used, and single tensors, layers together."""
    members, lost = _members(names), _members(unused)
    below: dict[str, list[str]] = defaultdict(list)
    for name in unused:
        below[_root(name, lost, members)].append(name)
    trees = {root: some for root, some in below.items() if len(some) > 1}
    for shape in shapes([Move((root,), ()) for root in trees]):
        roots = [root for move in shape.moves for root in move.old]
        parts = tuple(_tree(escape(root), trees[root]) for root in roots)
        whole = _tree(shape.old[0], [name for root in roots for name in trees[root]])
        yield Choice(whole.now, parts) if len(parts) > 1 else parts[0]
    for shape in shapes([Move((some[0],), ()) for some in below.values() if len(some) == 1]):
        yield _narrow(shape, _drop(shape), _drop)


def _members(names: Sequence[str]) -> Mapping[str, int]:
    """How many names stand below each module."""
    found: Counter[str] = Counter()
    for name in names:
        words = name.split(".")
        found.update(".".join(words[:n]) for n in range(1, len(words)))
    return found


def _root(name: str, lost: Mapping[str, int], members: Mapping[str, int]) -> str:
    """The outermost module around a name of which nothing is used; the name itself where there is none."""
    words = name.split(".")
    heads = (".".join(words[:n]) for n in range(1, len(words)))
    return next((head for head in heads if lost[head] == members[head]), name)


def _tree(pattern: str, names: Sequence[str]) -> Choice:
    """The rule that drops all below a module, or else each of its tensors."""
    shape = Shape((f"{pattern}.{{rest...}}",), (), tuple(Move((name,), ()) for name in names))
    singles = tuple(_narrow(one, _drop(one), _drop) for one in shapes(shape.moves))
    return Choice(_drop(shape), singles)


def _drop(shape: Shape) -> Written:
    return Written(Rule("drop", shape.old), shape.moves)


def _contents(links: Sequence[Link], casts: Mapping[str, Op], names: Sequence[str]) -> Iterator[Written]:
    """Rules that change contents in place: axes first, then shapes, then element types."""
    groups: dict[tuple[int, Rule], list[str]] = defaultdict(list)
    for link in links:
        for name in link.old:
            if link.axes == (1, 0):
                groups[0, Rule("transpose", ())].append(name)
            elif link.axes:
                groups[0, Rule("permute", (), options=(("axes", link.axes),))].append(name)
            if isinstance(link.op, Reshape):
                groups[1, Rule("reshape", (), options=(("shape", link.op.shape),))].append(name)
            if isinstance(cast := casts.get(name), Cast):
                groups[2, Rule("cast", (), options=(("dtype", cast.dtype.name),))].append(name)
    for (_, rule), some in sorted(groups.items(), key=lambda item: item[0][0]):
        for pattern, members in _sources(some, names):
            yield Written(replace(rule, sources=(pattern,)), tuple(Move((name,), (name,)) for name in members))


def _sources(some: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Patterns that match these names and no others of all; a name that none fits stands for itself."""
    wanted, left = set(some), dict.fromkeys(some)
    for folded in fold((name, None) for name in some):
        text = _pattern(folded.segments)
        if text is None:
            continue
        try:
            matcher = compile_pattern(parse_pattern(text), {}, frozenset())
        except PatternFault:
            continue
        hits = [name for name in names if matcher.match(name) is not None]
        if hits and wanted.issuperset(hits) and all(name in left for name in hits):
            yield text, tuple(hits)
            for name in hits:
                del left[name]
    for name in left:
        yield escape(name), (name,)


def _pattern(segments: tuple[tuple[str, ...], ...]) -> str | None:
    """Folded segments as a pattern: numbers in any layer, words that are listed."""
    letters = iter(LETTERS)
    texts = []
    for words in segments:
        if len(words) == 1:
            texts.append(escape(words[0]))
        elif all(word.isdecimal() for word in words):
            letter = next(letters, None)
            if letter is None:
                return None
            texts.append(f"{{{letter}}}")
        elif any(not word or set(word) & set("{}*\\| ") for word in words):
            return None
        else:
            texts.append("{" + "|".join(words) + "}")
    return ".".join(texts)
