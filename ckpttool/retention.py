"""Which checkpoints of a run stay. Pure: names, steps and metrics in, a choice with its reasons out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """What to keep: the last ``last``, those whose step is a multiple of ``every``, the ``best`` by metric.

    ``lower`` says that a lower metric is better. None or 0 asks for none of that kind.
    """

    last: int | None = 3
    every: int | None = None
    best: int = 0
    lower: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """A checkpoint of a run: its name, its step, its metric if one is known."""

    name: str
    step: int
    metric: float | None = None


def reasons_to_keep(items: Iterable[Item], kept: Kept) -> dict[str, tuple[str, ...]]:
    """By name why a checkpoint stays (``last``, ``every``, ``best``); whose name is not there may go.

    With no kind asked for at all, everything stays. A metric that is NaN never counts as best.
    """
    ordered = sorted(items, key=lambda item: (item.step, item.name))
    if kept.last is None and not kept.every and not kept.best:
        return {item.name: ("last",) for item in ordered}
    found: dict[str, list[str]] = {}
    for item in ordered[-kept.last :] if kept.last else []:
        found.setdefault(item.name, []).append("last")
    for item in ordered:
        if kept.every and item.step % kept.every == 0:
            found.setdefault(item.name, []).append("every")
    for item in _best(ordered, kept):
        found.setdefault(item.name, []).append("best")
    return {name: tuple(why) for name, why in found.items()}


def _best(ordered: list[Item], kept: Kept) -> list[Item]:
    """The best by metric; of equals the later one."""
    measured = [(i.metric, i.step, i) for i in ordered if i.metric is not None and i.metric == i.metric]
    sign = 1 if kept.lower else -1
    measured.sort(key=lambda found: (sign * found[0], -found[1]))
    return [item for *_, item in measured[: kept.best]]
