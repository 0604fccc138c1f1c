"""What nothing decides, put as questions: keys of the target, what they may be, and the rules that would answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ckpttool.migration.inference import Move, Question
from ckpttool.migration.rule_nouns import Rule
from ckpttool.migration.rule_writing import rule_lines
from ckpttool.migration.templates import Shape, by_module, shapes, under
from ckpttool.pairing.entries import One, Rest
from ckpttool.pairing.names import template

ANSWERS = 6
"""Rules that a question shows."""

Trait: TypeAlias = "tuple[str, tuple[int, ...]]"


def ask(rest: Rest, contents: bool) -> tuple[Question, ...]:
    """One question for each group of keys that may be each other's, layers together. Linear in keys of one shape.

    ``contents`` says that contents of both sides were compared.
    """
    olds: dict[Trait, list[One]] = defaultdict(list)
    for one in rest[0]:
        olds[_trait(one)].append(one)
    groups: dict[object, list[tuple[One, list[One]]]] = defaultdict(list)
    for one in rest[1]:
        candidates = _closest(one, olds.get(_trait(one), []))
        if candidates:
            key = _trait(one), tuple(sorted({template(other.words[:-1])[0] for other in candidates}))
            groups[key].append((one, candidates))
    return tuple(_question(some, contents) for some in groups.values())


def _trait(one: One) -> Trait:
    """What two tensors have in common that may be each other's: kind of element, and shape in any order."""
    return one.tensor.dtype.kind, tuple(sorted(size for size in one.tensor.shape if size != 1))


def _closest(one: One, others: Sequence[One]) -> list[One]:
    """Those that are nearest in each respect in turn: the name, the shape, the layer, the last segment."""
    found = list(others)
    for alike in (
        lambda other: other.words == one.words,
        lambda other: other.tensor.shape == one.tensor.shape,
        lambda other: template(other.words)[1] == template(one.words)[1],
        lambda other: other.words[-1] == one.words[-1],
    ):
        found = [other for other in found if alike(other)] or found
    return found


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
