"""What saving costs a run, and how often it should be done."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_INTERVAL = 1.0
"""Seconds between two saves that a budget asks for."""


class SaveCosts:
    """Measures what training waits for saves, and says when the next one is worth it. Counts from when it is made.

    >>> costs = ckpttool.SaveCosts()  # doctest: +SKIP
    >>> for step in range(steps):  # doctest: +SKIP
    ...     train(step)
    ...     if costs.within(0.02):  # at most 2 % of the time
    ...         with costs.saving():
    ...             store.save(state, step=step)
    >>> costs.advice(failures_every=86_400)  # doctest: +SKIP
    '40 saves of 210 ms took 1.9 % of the time; with a failure every 86400 s, a save every 190 s loses least'
    """

    def __init__(self) -> None:
        self.spent, self.saves = 0.0, 0  # seconds that training waited for saves, and how many
        self._started = self._last_end = time.monotonic()  # this clock never jumps, whatever is done to the date

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around each save. One that raises counts for nothing."""
        start = time.monotonic()
        yield
        self._last_end = time.monotonic()
        self.spent += self._last_end - start
        self.saves += 1

    @property
    def waited(self) -> float:
        """Seconds since the last save, or the start."""
        return time.monotonic() - self._last_end

    def within(self, share: float) -> bool:
        """Whether one more save leaves what all take within this share of the time; no more than one in a second."""
        cost, elapsed = self.spent / max(1, self.saves), time.monotonic() - self._started
        return share > 0 and self.waited >= LEAST_INTERVAL and self.spent + cost <= share * (elapsed + cost)

    def best_interval(self, failures_every: float) -> float:
        """The seconds between saves that lose least time where a failure comes every so many seconds.

        The classic optimum (Young 1974, Daly 2006): the square root of 2 × cost of a save × time between failures.
        """
        return math.sqrt(2 * failures_every * self.spent / max(1, self.saves))

    def advice(self, failures_every: float = 0.0, steps: int = 0) -> str:
        """What saving cost, in words, and the best interval for a rate of failures: in steps too, of so many so far."""
        if not self.saves:
            return "nothing was saved"
        total = max(1e-9, time.monotonic() - self._started)
        took = f"{self.saves} saves of {1e3 * self.spent / self.saves:.0f} ms took {100 * self.spent / total:.1f} %"
        if not failures_every:
            return f"{took} of the time"
        best = self.best_interval(failures_every)
        number = max(1, round(best * steps / max(1e-9, total - self.spent)))
        also = f" ({number} steps)" if steps else ""
        advised = f"with a failure every {failures_every:.0f} s, a save every {best:.0f} s{also} loses least"
        return f"{took} of the time; {advised}"
