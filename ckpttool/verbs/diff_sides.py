"""The two sides of a comparison: described, laid out, their tensors listed; files and objects in memory alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import translate
from functools import cache
from typing import TypeAlias

from ckpttool.changes import Side
from ckpttool.comparing.optimizers import state_key, state_keys
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.profiles import lay_out
from ckpttool.source import Source
from ckpttool.verbs.inventory import Item, Selection, items

Comparable: TypeAlias = "str | os.PathLike[str] | Checkpoint | tuple[Checkpoint, Source] | object"
"""A path or URL, a description (with the source of its bytes), or a state dict or module of this process."""

UNORDERED = ("safetensors", "sharded", "dcp")
"""Formats that keep no order of keys, no ties and no ``_metadata``."""


@dataclass(frozen=True, slots=True)
class Target:
    """One side: its name for people, its description, roles, selected tensors; ``sources`` hold bytes in memory."""

    name: str
    checkpoint: Checkpoint
    layout: Layout
    items: tuple[Item, ...]
    sources: tuple[Source, ...] = ()

    @property
    def errors(self) -> list[Damage]:
        """Why it cannot be trusted: what makes it no checkpoint, or damaged."""
        if self.checkpoint.kind:
            return [Damage("not-a-checkpoint", self.name, f"this is {self.checkpoint.kind}, not a checkpoint")]
        return [one for one in self.checkpoint.damage if _damages(one)]

    @property
    def usable(self) -> bool:
        return not self.checkpoint.kind and self.checkpoint.root is not None


def target(obj: Comparable, place: str, selection: Selection, limits: Limits = DEFAULT) -> Target:
    """Describe one side; ``place`` names what has no name. Reads headers only. Raises ``Unreadable``."""
    name, checkpoint, sources = _described(obj, place, limits)
    layout = lay_out(checkpoint)
    return Target(name, checkpoint, layout, tuple(_items(checkpoint, layout, selection)), sources)


def _items(checkpoint: Checkpoint, layout: Layout, selection: Selection) -> Iterator[Item]:
    """Selected tensors; state of optimizers goes by the parameter's name, and is selected by either name."""
    states = state_keys(layout)
    for item in items(checkpoint, layout):
        known = states.get(item.index)
        named = item if known is None else replace(item, key=state_key(*known))
        if selects(selection, item.section, item.key, named.key):
            yield named


def selects(selection: Selection, section: str, *keys: str) -> bool:
    """Whether a selection takes what goes by any of these keys."""
    if selection.everything:
        return True
    if selection.sections and section not in selection.sections:
        return False
    wanted = not selection.only or any(_globs(selection.only).match(key) for key in keys)
    return wanted and not (selection.ignore and any(_globs(selection.ignore).match(key) for key in keys))


@cache
def _globs(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))


def _described(obj: Comparable, place: str, limits: Limits) -> tuple[str, Checkpoint, tuple[Source, ...]]:
    if isinstance(obj, (str, os.PathLike)):
        from ckpttool.formats import describe

        return printable(os.fspath(obj)), describe(obj, limits), ()
    if isinstance(obj, Checkpoint):
        return printable(obj.source), obj, ()
    if isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[0], Checkpoint):
        return printable(obj[0].source), obj[0], (obj[1],)
    from ckpttool.memory import describe_state

    checkpoint, source = describe_state(obj, f"<{place}: {type(obj).__name__}>")
    return checkpoint.source, checkpoint, (source,)


def _damages(damage: Damage) -> bool:
    from ckpttool.checks import rules

    rule = rules().get(damage.rule)
    return rule is not None and rule.severity == "error" and rule.axis in ("integrity", "hostile", "both", "none")


def side_of(item: Item) -> Side:
    """The tensor as pairs name it."""
    return Side(item.key, item.path, item.index, item.section)


def with_slices(
    checkpoint: Checkpoint, index: int, dim: int, cuts: Sequence[tuple[int, int]]
) -> tuple[Checkpoint, list[int]]:
    """The checkpoint with slices ``[start, stop)`` of one of its tensors as further nodes, and their indices."""
    whole = checkpoint.nodes[index]
    assert isinstance(whole, Tensor)
    parts = []
    for start, stop in cuts:
        shape = (*whole.shape[:dim], stop - start, *whole.shape[dim + 1 :])
        parts.append(replace(whole, shape=shape, offset=whole.offset + start * whole.stride[dim]))
    first = len(checkpoint.nodes)
    return replace(checkpoint, nodes=(*checkpoint.nodes, *parts)), list(range(first, first + len(parts)))
