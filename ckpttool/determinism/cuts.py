"""Where to interrupt: the places where resumes fail, then places drawn at random. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ckpttool.determinism.trace import Save, Step

Cut = tuple[int, ...]
"""The steps after which the run is killed, one after the other; two make a resume of a resume."""


def choose(steps: Mapping[int, Step], saves: Sequence[Save], count: int, seed: int = 0) -> tuple[Cut, ...]:
    """At most ``count`` cuts: right after a save, between two, before one, at changes of the learning rate, double
    ones, between a step and its save, then random ones.
    """
    last = max(steps, default=0)
    saved = sorted({save.number for save in saves if 0 < save.number < last})
    if not saved:
        return ()
    first = saved[0] + 1  # the kill comes right after the step, before what the script does then: saving, say
    middle = [(a + b) // 2 for a, b in pairwise([*saved, last]) if b - a > 2]
    wanted: list[Cut] = [(first,), *[(m,) for m in middle[:1]]]
    if len(saved) > 1:
        wanted += [(first, saved[1] + 1), (saved[-1] + 1,), (saved[1],)]
    else:
        wanted.append((first, first + 1))
    wanted += [(m,) for m in _milestones(steps, first, last)[:2]]
    wanted += [(saved[0],), *[(m,) for m in middle[1:]]]
    wanted = [cut for cut in wanted if max(cut) < last]
    rng = random.Random(seed)
    choices = range(first, last)
    while len(set(wanted)) < min(count, len(choices)):
        wanted.append((rng.choice(choices),))
    return tuple(dict.fromkeys(wanted))[:count]


def _milestones(steps: Mapping[int, Step], first: int, last: int) -> list[int]:
    """Steps where the learning rate stops or starts to change."""
    rates = {number: step.fields.get("lr", "") for number, step in sorted(steps.items())}
    numbers = [n for n in rates if first < n < last - 1 and n - 1 in rates and n + 1 in rates]
    return [n for n in numbers if (rates[n] == rates[n - 1]) != (rates[n + 1] == rates[n])]
