"""Items as CPython writes them: a thousand at a time, and a last single one in a way of its own.

Source: CPython 3.11 ``Modules/_pickle.c``, ``batch_list``, ``batch_dict`` and their ``_exact`` twins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ckpttool.formats import pickle_spelling as spell

Step: TypeAlias = "int | bytes | Callable[[], object]"
"""A node to write, bytes as they are, or what remains to be done once those before it stand."""


def appended(items: tuple[int, ...], *, exact: bool) -> list[Step]:
    """Items appended; ``exact`` for a list's own, of which a last single one is written in a batch too."""
    steps: list[Step] = []
    for start in range(0, len(items), spell.BATCH):
        batch = items[start : start + spell.BATCH]
        if len(batch) == 1 and not (exact and start):
            steps += [batch[0], spell.APPEND]
        else:
            steps += [spell.MARK, *batch, spell.APPENDS]
    return steps


def set_items(keys: tuple[int, ...], values: tuple[int, ...], *, exact: bool) -> list[Step]:
    """Items set; ``exact`` for a dict's own, which end with an empty batch where the last one was full."""
    steps: list[Step] = []
    count = len(keys)
    for start in range(0, count, spell.BATCH):
        stop = min(start + spell.BATCH, count)
        pairs = [i for pair in zip(keys[start:stop], values[start:stop], strict=True) for i in pair]
        if len(pairs) == 2 and not (exact and start):
            steps += [*pairs, spell.SETITEM]
        else:
            steps += [spell.MARK, *pairs, spell.SETITEMS]
    if exact and count and count % spell.BATCH == 0:
        steps += [spell.MARK, spell.SETITEMS]
    return steps
