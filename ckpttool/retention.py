"""Which checkpoints of a run stay. Pure: names, steps and metrics in, a choice with its reasons out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

METRICS = "metrics.json"
"""The file beside a run's checkpoints that notes the metric of each, where one was given."""


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


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a run noted of its checkpoints: a number by step, and whether a lower one is better."""

    by_step: Mapping[int, float] = field(default_factory=dict)
    lower: bool = True

    @classmethod
    def parse(cls, data: bytes) -> Metrics:
        """Read the content of ``metrics.json``; raises ``ValueError`` for anything else."""
        try:
            found = json.loads(data)
            by_step = {int(step): float(metric) for step, metric in found["metrics"].items()}
            return cls(by_step, {"lower": True, "higher": False}[found["better"]])
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"these are no metrics: {error!r}") from None

    def encoded(self) -> bytes:
        """The content of ``metrics.json``; numbers that JSON does not have are strings."""
        by_step = {str(k): v if math.isfinite(v) else repr(v) for k, v in sorted(self.by_step.items())}
        return json.dumps({"better": "lower" if self.lower else "higher", "metrics": by_step}, indent=1).encode()


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
