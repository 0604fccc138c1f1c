"""What nothing decides, put as questions: keys of the target, what they may be, and the rules that would answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ckpttool.migration.inference import Question
from ckpttool.migration.rule_nouns import Rule
from ckpttool.migration.rule_writing import rule_lines
from ckpttool.migration.templates import Move, Shape, shapes
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
            key = _trait(one), tuple(sorted({template(other.words)[0] for other in candidates}))
            groups[key].append((one, candidates))
    return tuple(_question(some, contents) for some in groups.values())


def _trait(one: One) -> Trait:
    """What two tensors have in common that may be each other's: kind of element, and shape in any order."""
    return one.tensor.dtype.kind, tuple(sorted(size for size in one.tensor.shape if size != 1))


def _closest(one: One, others: Sequence[One]) -> list[One]:
    """Those of the same layer where there are any: namesakes alone where one is left."""
    namesakes = [other for other in others if other.words == one.words]
    if namesakes:
        return namesakes
    numbers = template(one.words)[1]
    layer = [other for other in others if template(other.words)[1] == numbers]
    return layer or list(others)


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
    """The rules that would settle it, one for each pair of templates."""
    pairs = [(other, one) for one, others in some for other in others]
    if all(other.words == one.words for other, one in pairs):
        for shape in shapes([Move((other.side.key,), (one.side.key,)) for other, one in pairs])[:ANSWERS]:
            yield from _answer(shape, "transpose")
        return
    for shape in shapes([Move((other.side.key,), (one.side.key,)) for other, one in pairs])[:ANSWERS]:
        yield from _answer(shape, "rename")


def _answer(shape: Shape, kind: str) -> list[str]:
    if kind == "rename":
        return rule_lines(Rule("rename", shape.old, shape.new))
    lines = rule_lines(Rule(kind, shape.old))
    return lines if shape.old == shape.new else [*lines, *rule_lines(Rule("rename", shape.old, shape.new))]
