"""A checkpoint's tree as indented lines, repetition folded. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence as Sequence_
from dataclasses import field

from ckpttool.folding import Fold, fold, segment_text
from ckpttool.frozen import dataclass
from ckpttool.model import Blob, Call, Entry, Global, Mapping, Node, Sequence, Tensor, Value
from ckpttool.units import plural, shape

LONGEST = 60
"""Characters of a value's text that are shown; what is left out is counted."""


@dataclass(slots=True)
class _Branch:
    """A place in the tree while it is being put together."""

    below: dict[str, _Branch] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)


def outline(entries: list[Entry]) -> tuple[tuple[int, str], ...]:
    """Depth and text of each line; names are folded where everything below them is alike."""
    root = _Branch()
    for one in fold(_leaves(entries)):
        _plant(root, one)
    return tuple(_walk(root))


def _leaves(entries: list[Entry]) -> Iterator[tuple[str, str]]:
    """Keys with what stands there; a sequence of plain values is one leaf."""
    runs = [(parent, list(run)) for parent, run in itertools.groupby(entries, lambda entry: entry.path[:-1])]
    for (parent, run), (_, after) in itertools.zip_longest(runs, runs[1:], fillvalue=((), [])):
        values = [entry.node.value for entry in run if isinstance(entry.node, Value)]
        # Where the same sequence goes on with something else, its items keep their own lines.
        ends = not after or after[0].path[: len(parent)] != parent
        if parent and ends and len(values) == len(run) and _counts_up(run):
            yield ".".join(parent), _listed(values)
        else:
            yield from ((entry.key, describe_leaf(entry.node)) for entry in run)


def _counts_up(run: list[Entry]) -> bool:
    return run[0].path[-1] == "0" and run[-1].path[-1] == str(len(run) - 1)


def _listed(values: Sequence_[object]) -> str:
    shown: list[str] = []
    for value in values:
        shown.append(_short(value))
        if sum(map(len, shown)) > LONGEST and len(values) > len(shown):
            return f"[{', '.join(shown)}, …] ({plural(len(values), 'value')})"
    return f"[{', '.join(shown)}]"


def describe_leaf(node: Node) -> str:
    """A leaf in a few words: a tensor's type and shape, a value's text, what an object would be made of."""
    if isinstance(node, Tensor):
        layout = "" if node.layout == "strided" else f" {node.layout}"
        return f"{node.dtype.name} {shape(node.shape)}{layout}"
    if isinstance(node, Value):
        return _short(node.value)
    if isinstance(node, Blob):
        return plural(node.span.nbytes, "byte")
    if isinstance(node, Global):
        return node.dotted
    if isinstance(node, Call):
        return f"{node.dotted}()"
    return _empty(node)


def _empty(node: Mapping | Sequence) -> str:
    return f"empty {node.kind}"


def _short(value: object) -> str:
    # A slice first: a megabyte of text must not be escaped to show sixty characters.
    length = len(value) if isinstance(value, (str, bytes)) else 0
    if length > LONGEST and isinstance(value, (str, bytes)):
        unit = "character" if isinstance(value, str) else "byte"
        return f"{value[:LONGEST]!r}… ({plural(length, unit)})"
    text = repr(value)
    return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}… ({plural(len(text), 'digit')})"


def _plant(root: _Branch, one: Fold[str]) -> None:
    place = root
    for alternatives in one.segments:
        place = place.below.setdefault(segment_text(alternatives), _Branch())
    place.marks.append(one.mark)


def _walk(root: _Branch) -> Iterator[tuple[int, str]]:
    """Lines in order; chains of single children share a line."""
    for mark in root.marks:
        yield 0, mark
    stack = [(0, name, branch) for name, branch in reversed(root.below.items())]
    while stack:
        depth, name, branch = stack.pop()
        while len(branch.below) == 1 and not branch.marks:
            ((step, branch),) = branch.below.items()
            name = f"{name}.{step}"
        yield depth, f"{name}: {', '.join(branch.marks)}" if branch.marks else name
        stack.extend((depth + 1, step, below) for step, below in reversed(branch.below.items()))
