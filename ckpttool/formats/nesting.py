"""A nested state dict from a flat one: names and the paths that they had."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from ckpttool.model import MAX_DEPTH, Mapping, Node, Sequence, Value

Path: TypeAlias = "tuple[str | int, ...]"

DEEPEST = MAX_DEPTH - 100
"""Steps of a path that are followed; a longer one stands under its flat name."""

GAPS = 16
"""Places of a list that may be empty; past them, and past its length, its numbers are keys."""


class _Branch:
    """A container under construction; ``places`` are steps to nodes or to further containers."""

    __slots__ = ("is_list", "places")

    def __init__(self, *, is_list: bool) -> None:
        self.is_list = is_list
        self.places: dict[str | int, int | _Branch] = {}


def nested(items: Iterable[tuple[str, Path, int]], nodes: list[Node]) -> tuple[int, list[str]]:
    """Append containers that lead to each ``(flat name, path, node index)``; the root, and names that kept flat.

    A step that is a number means a list, as torch has it. A path that is taken, or leads through a value, or is too
    long, is not followed: its item stands at the root under its flat name. Linear in the steps.
    """
    root = _Branch(is_list=False)
    branches = [root]
    flat: list[tuple[str, int]] = []
    for name, path, index in items:
        if len(path) > DEEPEST or isinstance(path[0], int) or not _placed(root, path, index, branches):
            flat.append((name, index))
    for name, index in flat:
        if name not in root.places:
            root.places[name] = index
    made: dict[int, int] = {}
    for branch in reversed(branches):  # what stands within comes after what it stands in
        made[id(branch)] = _container(branch, made, nodes)
    return made[id(root)], [name for name, _ in flat]


def _placed(root: _Branch, path: Path, index: int, branches: list[_Branch]) -> bool:
    here = root
    for step, after in pairwise(path):
        below = here.places.get(step)
        if below is None:
            if isinstance(step, int) is not here.is_list:
                return False
            below = here.places[step] = _Branch(is_list=isinstance(after, int))
            branches.append(below)
        if not isinstance(below, _Branch):
            return False
        here = below
    if path[-1] in here.places or isinstance(path[-1], int) is not here.is_list:
        return False
    here.places[path[-1]] = index
    return True


def _container(branch: _Branch, made: dict[int, int], nodes: list[Node]) -> int:
    found = {step: made[id(below)] if isinstance(below, _Branch) else below for step, below in branch.places.items()}
    numbers = [step for step in found if isinstance(step, int)]
    if branch.is_list and max(numbers, default=-1) < 2 * len(numbers) + GAPS:
        listed = [found.get(i) for i in range(max(numbers, default=-1) + 1)]
        return _put(nodes, Sequence("list", tuple(_put(nodes, Value(None)) if i is None else i for i in listed)))
    keys = tuple(_put(nodes, Value(step)) for step in found)
    return _put(nodes, Mapping("dict", keys, tuple(found.values())))


def _put(nodes: list[Node], node: Node) -> int:
    nodes.append(node)
    return len(nodes) - 1
