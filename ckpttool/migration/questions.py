"""What nothing decides, put as questions: keys of the target, what they may be, and the rules that would answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ckpttool.migration.inference import Move, Question
from ckpttool.migration.rule_comments import rule_lines
from ckpttool.migration.rule_nouns import Rule
from ckpttool.migration.templates import Shape, by_module, shapes, under
from ckpttool.pairing.entries import One, Rest
from ckpttool.pairing.named import Counts
from ckpttool.pairing.names import template

ANSWERS = 6
"""Rules that a question shows."""

Trait: TypeAlias = "tuple[str, tuple[int, ...]]"


def ask(rest: Rest, whole: Rest, contents: bool) -> tuple[Question, ...]:
    """One question for each group of keys that may be each other's, layers together. Linear in keys of one shape.

    ``rest`` is what has no partner, of ``whole``; ``contents`` says that contents of both sides were compared.
    """
    olds: dict[Trait, list[One]] = defaultdict(list)
    for one in rest[0]:
        olds[_trait(one)].append(one)
    groups: dict[object, list[tuple[One, list[One]]]] = defaultdict(list)
    counts = Counts(whole)
    for one in rest[1]:
        candidates = _closest(one, olds.get(_trait(one), []), counts)
        if candidates:
            key = _trait(one), tuple(sorted({template(other.words[:-1])[0] for other in candidates}))
            lost = any(counts.shrink((other, one)) and _like(other, one) for other in candidates)
            groups["layers" if lost else key].append((one, candidates))
    return tuple(
        _layers(some, counts) if key == "layers" else _question(some, contents) for key, some in groups.items()
    )


def _trait(one: One) -> Trait:
    """What two tensors have in common that may be each other's: kind of element, and shape in any order."""
    return one.tensor.dtype.kind, tuple(sorted(size for size in one.tensor.shape if size != 1))


def _closest(one: One, others: Sequence[One], counts: Counts) -> list[One]:
    """Those that are nearest in each respect in turn: the name, the shape, the layer, the last segment.

    Where the other side has lost layers, its numbers tell nothing: all layers stay.
    """
    found = list(others)
    lost = any(counts.shrink((other, one)) and _like(other, one) for other in others)
    for alike in (
        lambda other: template(other.words)[0] == template(one.words)[0],
        lambda other: lost or other.words == one.words,
        lambda other: other.tensor.shape == one.tensor.shape,
        lambda other: lost or template(other.words)[1] == template(one.words)[1],
        lambda other: other.words[-1] == one.words[-1],
    ):
        found = [other for other in found if alike(other)] or found
    return found


def _like(one: One, other: One) -> bool:
    """Whether two names differ in numbers at most, or end alike behind their last number."""
    return one.words[-1] == other.words[-1]


def _layers(some: Sequence[tuple[One, list[One]]], counts: Counts) -> Question:
    """The question which layers stayed, with two answers: the first ones, or the last ones."""
    new = tuple(one.side.key for one, _ in some)
    candidates = tuple(dict.fromkeys(other.side.key for _, others in some for other in others))
    one, other = some[0][0], some[0][1][0]
    ours, theirs = next(pair for pair in counts.lists((other, one)) if not pair[0] <= pair[1])
    why = f"{len(ours)} layers here, {len(theirs)} in the target, and names do not tell which ones stayed"
    at = next(n for n, word in enumerate(other.words) if word in ours)
    head, to = ".".join(other.words[:at]), ".".join(one.words[:at])
    kept = len(theirs)
    last = [str(number) for number in range(kept, len(ours))] if ours == {str(n) for n in range(len(ours))} else []
    rules = [*(f'- drop: "{head}.{number}.{{rest...}}"' for number in last)]
    first = [str(number) for number in range(len(ours) - kept)] if last else []
    rules += ["# or, if the last ones stayed:"] if last else []
    rules += [f'- drop: "{head}.{number}.{{rest...}}"' for number in first]
    if last:
        rules += [f'- rename: "{head}.{{i}}.{{rest...}}"', f'  to: "{to}.{{i-{len(first)}}}.{{rest...}}"']
    return Question(new, candidates, why, tuple(rules))


def _question(some: Sequence[tuple[One, list[One]]], contents: bool) -> Question:
    new = tuple(one.side.key for one, _ in some)
    candidates = tuple(dict.fromkeys(other.side.key for _, others in some for other in others))
    return Question(new, candidates, _why(some, contents), tuple(_answers(some)))


def _why(some: Sequence[tuple[One, list[One]]], contents: bool) -> str:
    one, others = some[0]
    if any(other.words == one.words for other in others):
        shape = one.tensor.shape
        if len(shape) == 2 and shape[0] == shape[1]:
            return "square matrices beside others that are transposed: are these transposed too?"
        return "equal names, but what stands around them went elsewhere"
    told = "contents differ" if contents else "contents were not compared"
    return f"one shape, no telling name, and {told}"


def _answers(some: Sequence[tuple[One, list[One]]]) -> Iterator[str]:
    """The rules that would settle it, one for each pair of modules, layers together."""
    pairs: dict[object, list[tuple[One, One]]] = defaultdict(list)
    for one, others in some:
        for other in others:
            pairs[template(other.words[:-1])[0], template(one.words[:-1])[0]].append((other, one))
    for same in list(pairs.values())[:ANSWERS]:
        kind = "transpose" if all(other.words == one.words for other, one in same) else "rename"
        found = shapes([Move((other.side.key,), (one.side.key,)) for other, one in same])
        wide = under(found) if len(found) > 1 and len(by_module(found)) == 1 else None
        for shape in [wide] if wide else found[:ANSWERS]:
            yield from _answer(shape, kind)


def _answer(shape: Shape, kind: str) -> list[str]:
    if kind == "rename":
        return rule_lines(Rule("rename", shape.old, shape.new))
    lines = rule_lines(Rule(kind, shape.old))
    return lines if shape.old == shape.new else [*lines, *rule_lines(Rule("rename", shape.old, shape.new))]
