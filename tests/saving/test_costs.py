"""What saves cost, and how often they pay."""

from __future__ import annotations

import time

import pytest

from ckpttool import SaveCosts


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def save(costs: SaveCosts, clock: Clock, seconds: float) -> None:
    with costs.saving():
        clock.now += seconds


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_budget_is_used_and_kept(clock: Clock, share: float) -> None:
    costs, spent = SaveCosts(), 0.0
    for _ in range(3000):
        clock.now += 0.7
        if costs.within(share):
            save(costs, clock, 2.0)
            spent += 2.0
    assert 0.9 * share <= spent / (clock.now - 100) <= share + 2.0 / (clock.now - 100)


def test_saves_that_were_not_asked_for_count_too(clock: Clock) -> None:
    costs = SaveCosts()
    clock.now += 10
    save(costs, clock, 5.0)
    clock.now += 70
    assert not costs.within(0.1)  # 10 of 90 s
    clock.now += 10
    assert costs.within(0.1)


def test_no_budget_and_no_second_save_in_one_second(clock: Clock) -> None:
    costs = SaveCosts()
    clock.now += 1000
    assert not costs.within(0.0)
    save(costs, clock, 0.001)
    clock.now += 0.5
    assert costs.waited == pytest.approx(0.5)
    assert not costs.within(0.9)
    clock.now += 0.5
    assert costs.within(0.9)


def test_the_classic_optimum(clock: Clock) -> None:
    """Of all intervals it loses least: saves on one side, half an interval of work for each failure on the other."""
    costs, failures = SaveCosts(), 3600.0
    assert costs.advice(failures) == "nothing was saved"
    clock.now += 94
    save(costs, clock, 2.0)
    save(costs, clock, 4.0)
    best = costs.best_interval(failures)

    def lost(interval: float) -> float:
        return 3.0 / interval + interval / 2 / failures

    assert lost(best) < min(lost(best * 0.9), lost(best * 1.1))
    assert costs.advice() == "2 saves of 3000 ms took 6.0 % of the time"
    assert costs.advice(failures).endswith("; with a failure every 3600 s, a save every 147 s loses least")
    assert "a save every 147 s (294 steps) loses least" in costs.advice(failures, steps=188)


def test_a_save_that_fails_costs_nothing(clock: Clock) -> None:
    costs = SaveCosts()
    with pytest.raises(OSError, match="full"), costs.saving():
        raise OSError("full")
    assert costs.saves == 0
