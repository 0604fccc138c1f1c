"""Where to interrupt: the places where resumes fail, then places drawn at random. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from ckpttool.determinism.trace import Between, Save, Step

BY_DEFAULT = 6
"""Kills that are tried where no number is given: their choice is not changed by kinds that came later."""

Cut = tuple[int, ...]
"""The steps after which the run is killed, one after the other; two make a resume of a resume."""

How: TypeAlias = Literal["step", "event", "byte", "sigterm", "again", "rank", "early", "power"]


@dataclass(frozen=True, slots=True)
class Kill:
    """One planned interruption: after which steps, why there, and how.

    ``step``: SIGKILL right after the step. ``event``: in ``save``, right before the ``place``-th thing that happens to
    files. ``byte``: as a file that ``save`` writes has ``place`` bytes. ``sigterm``: asked to end, with time to do it.
    ``again``: so too, and once more before the ``place``-th thing that the save which follows does to files.
    ``rank``: of several processes the ``place``-th alone. ``early``: before anything was saved. ``power``: what was not
    flushed to the disk is lost too.
    """

    cut: Cut
    why: str
    how: How = "step"
    save: int = 0
    place: int = 0

    @property
    def name(self) -> str:
        """What its folder is called."""
        steps = "-".join(map(str, self.cut))
        more = {"event": f"save-{self.save}-event-{self.place}", "byte": f"save-{self.save}-byte-{self.place}"}
        more |= {"rank": f"rank-{self.place}-step-{steps}", "sigterm": f"sigterm-{steps}"}
        more |= {"again": f"sigterm-twice-{steps}", "power": f"power-cut-{steps}"}
        return more.get(self.how, f"cut-{steps}")

    def __str__(self) -> str:
        steps = " and ".join(map(str, self.cut))
        match self.how:
            case "event":
                place = "as it begins" if not self.place else f"before event {self.place} of its files"
                return f"killed in the save after step {steps}, {place}"
            case "byte":
                return f"killed in the save after step {steps}, at byte {self.place:,} of its file"
            case "sigterm":
                return f"told to end by SIGTERM after step {steps}"
            case "again":
                return f"told to end by SIGTERM after step {steps}, and again as it saves"
            case "power":
                return f"a power cut after step {steps}"
            case "rank":
                return f"rank {self.place} alone killed after step {steps}"
        return f"killed after step {steps}"


def plan(
    steps: Mapping[int, Step], saves: Sequence[Save], between: Sequence[Between], *, cuts: int, kills: int = 0,
    ranks: int = 1, seed: int = 0, power_cuts: int = 0, at: Sequence[Cut] = (),
) -> tuple[Kill, ...]:  # fmt: skip
    """Everything that is to be tried: cuts at steps first, then deaths inside saves, SIGTERM and single ranks, power.

    The same for the same arguments. Nothing where nothing was saved that could be resumed. ``at`` are cuts that were
    named: they take the place of those that are chosen.
    """
    named = [(cut, "asked for") for cut in at if cut[-1] < max(steps, default=0)] if saves else []
    found = [Kill(cut, why) for cut, why in (named if at else chosen(steps, saves, cuts, seed, between))]
    if not found:
        return ()
    last = max(steps)
    if ranks > 1 and kills:
        step = found[0].cut[0]
        alone = (ranks - 1, 0)[:kills]
        found += [Kill((step,), "one of several processes", "rank", place=rank) for rank in alone]
        kills -= len(alone)
    cut = [Kill((save.number + 1,), "what is not flushed is lost", "power") for save in _struck(saves, last - 1)]
    return (*found, *_recoveries(saves, last, kills, seed), *dict.fromkeys(cut[:power_cuts]))


def _recoveries(saves: Sequence[Save], last: int, kills: int, seed: int) -> tuple[Kill, ...]:
    """Deaths inside saves, in an order in which any first few make sense."""
    chosen_saves, inside = _struck(saves, last), _inside(saves, last)
    if not kills or not inside:
        return ()
    rng = random.Random(seed)
    found: list[Kill] = []
    first = chosen_saves[0]
    found += _bytes(first, rng, "half-written")
    found += [_event(first, place) for place in _telling(first)[:1]]
    found.append(Kill((first.number,), "time to save and go", "sigterm"))
    found += [_event(first, 0)]
    if first.number > 1:
        found.append(Kill((1,), "before anything was saved", "early"))
    for save in chosen_saves[1:]:
        found += _bytes(save, rng, "half-written")
        found += [_event(save, place) for place in _telling(save)]
    found += [_event(first, place) for place in _telling(first)[1:]]
    place = next(iter(_telling(first)), 1)
    again = Kill((first.number,), "hit again while it saves", "again", place=place)
    found.insert(BY_DEFAULT, again)
    while len(dict.fromkeys(found)) < kills:
        extra = _bytes(rng.choice(inside), rng, "random")
        if not extra or len(found) > 4 * kills:
            break
        found += extra
    return tuple(dict.fromkeys(found))[:kills]


def _inside(saves: Sequence[Save], last: int) -> list[Save]:
    return [save for save in saves if 0 < save.number < last and save.ordinal]


def _struck(saves: Sequence[Save], last: int) -> list[Save]:
    """The saves to strike at, in this order: the second, which has one before it, the first, the last."""
    inside = _inside(saves, last)
    return list(dict.fromkeys([inside[min(1, len(inside) - 1)], inside[0], inside[-1]])) if inside else []


def _telling(save: Save) -> list[int]:
    """The places of a save's events, those first that change what the next start finds."""
    order = {"rename": 0, "symlink": 0, "link": 0, "remove": 1, "rmtree": 1, "truncate": 1, "open": 2}
    places = range(1, len(save.events) + 1)
    return sorted(places, key=lambda place: (order.get(_told(save.events[place - 1])[0], 3), -place))


def _event(save: Save, place: int) -> Kill:
    """Death before one of a save's events."""
    told = "as a save begins" if not place else "before {} {}".format(*_told(save.events[place - 1]))
    return Kill((save.number,), told, "event", save.ordinal, place)


def _told(event: tuple[str, str]) -> tuple[str, str]:
    return event[0].rpartition(".")[2], event[1]


def _bytes(save: Save, rng: random.Random, why: str) -> list[Kill]:
    size = save.size or 0
    return [Kill((save.number,), why, "byte", save.ordinal, rng.randrange(1, size))] if size > 1 else []


# --- at steps ----------------------------------------------------------------------------------------------------


def choose(steps: Mapping[int, Step], saves: Sequence[Save], count: int, seed: int = 0) -> tuple[Cut, ...]:
    """At most ``count`` cuts: right after a save, between two, before one, at changes of the learning rate, double
    ones, between a step and its save, then random ones.
    """
    return tuple(cut for cut, _ in chosen(steps, saves, count, seed))


def chosen(
    steps: Mapping[int, Step], saves: Sequence[Save], count: int, seed: int = 0, between: Sequence[Between] = ()
) -> tuple[tuple[Cut, str], ...]:
    """The same, each with the reason for it."""
    last = max(steps, default=0)
    saved = sorted({save.number for save in saves if 0 < save.number < last})
    if not saved:
        return ()
    first = saved[0] + 1  # the kill comes right after the step, before what the script does then: saving, say
    found: dict[Cut, str] = {}
    for cut, why in _strata(steps, saved, between, first, last):
        if max(cut) < last:
            found.setdefault(cut, why)
    rng = random.Random(seed)
    choices = range(first, last)
    most = min(count, math.comb(len(choices), 1) + math.comb(len(choices), 2))
    for _ in range(20 * count):
        if len(found) >= most:
            break
        double = rng.random() < 0.25 and len(choices) > 1
        found.setdefault(tuple(sorted(rng.sample(choices, 2 if double else 1))), "random")
    for number in choices:
        if len(found) < most:
            found.setdefault((number,), "what is left")
    return tuple(found.items())[:count]


def _strata(
    steps: Mapping[int, Step], saved: Sequence[int], between: Sequence[Between], first: int, last: int
) -> Iterator[tuple[Cut, str]]:
    middle = [(a + b) // 2 for a, b in pairwise([*saved, last]) if b - a > 2]
    yield (first,), "right after the first save"
    yield from (((m,), "between two saves") for m in middle[:1])
    if len(saved) > 1:
        yield (first, saved[1] + 1), "a resume of a resume"
        yield (saved[-1] + 1,), "right after the last save"
        yield (saved[1],), "after a step, before its save"
    else:
        yield (first, first + 1), "a resume of a resume, from the same save"
    yield from (((m,), "the learning rate turns") for m in _milestones(steps, first, last)[:2])
    evaluated = [b.number for b in between if b.evaluations and b.number >= first]
    for number in evaluated[:1]:
        yield (number,), "before an evaluation"
        yield (number + 1,), "after an evaluation"
    for number in [n for n in epochs(steps) if n > first][:2]:
        yield (number - 1,), "the last batch of an epoch"
        yield (number,), "the first batch of an epoch"
    yield (saved[0],), "after a step, before the first save"
    yield from (((m,), "between two saves") for m in middle[1:])


def _milestones(steps: Mapping[int, Step], first: int, last: int) -> list[int]:
    """Steps where the learning rate stops or starts to change."""
    rates = {number: step.fields.get("lr", "") for number, step in sorted(steps.items())}
    numbers = [n for n in rates if first < n < last - 1 and n - 1 in rates and n + 1 in rates]
    return [n for n in numbers if (rates[n] == rates[n - 1]) != (rates[n + 1] == rates[n])]


def epochs(steps: Mapping[int, Step]) -> list[int]:
    """The steps with which epochs begin, but for the first: their batch holds a sample of the epoch before."""
    found, seen = [], set[str]()
    for number, step in sorted(steps.items()):
        samples = set(samples_of(step))
        if samples & seen:
            found.append(number)
            seen = set()
        seen |= samples
    return found


def samples_of(step: Step) -> tuple[str, ...]:
    """The digests of a step's samples, in their order."""
    return tuple(step.rows[i : i + 8] for i in range(0, len(step.rows), 8))
