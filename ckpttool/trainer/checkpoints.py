"""When to save, where to, and what it costs; and finding the checkpoint to go on from."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any

from ckpttool import CheckpointStore, UsageError, WriteFailed
from ckpttool.trainer.config import Config, differences
from ckpttool.trainer.signals import Signals
from ckpttool.trainer.state import TrainState, surprises

LEAST_INTERVAL = 1.0  # seconds between two saves that a budget asks for


class Saver:
    """Saves at steps, epochs, seconds, the best metric, signals, the end; measures what that costs."""

    def __init__(self, folder: Path, config: Config, signals: Signals, *, lower: bool) -> None:
        self.store = CheckpointStore(
            folder, keep=config.keep, every=config.keep_every or None, best=config.keep_best, lower=lower
        )
        self.config = config
        self.signals = signals
        self.started = time.monotonic()
        self.last_end = self.started  # when the last save ended
        self.spent = 0.0  # seconds that saving took
        self.saves = 0
        self.failed = ""

    def due(self, state: TrainState, *, epoch_ended: bool) -> str:
        """Why a checkpoint is due after this step; empty if none is. The clock is monotonic: it may not jump."""
        config, step = self.config, state.counters.step
        if self.signals.take_save():
            return "SIGUSR1"
        if config.save_every and step % config.save_every == 0:
            return "step"
        if epoch_ended and config.save_every_epochs and state.position.epoch % config.save_every_epochs == 0:
            return "epoch"
        waited = time.monotonic() - self.last_end
        if config.save_every_seconds and waited >= config.save_every_seconds:
            return "time"
        return "budget" if config.save_budget and waited >= self.budget_interval() else ""

    def budget_interval(self) -> float:
        """Seconds of training between saves such that saving takes its share and no more."""
        cost = self.spent / self.saves if self.saves else LEAST_INTERVAL * self.config.save_budget
        return max(LEAST_INTERVAL, cost * (1 - self.config.save_budget) / self.config.save_budget)

    def save(self, state: TrainState, metric: float | None = None) -> bool:
        """Save now. A disk that takes no more stops the run or, with ``on_full_disk = go-on``, is a warning."""
        start = time.monotonic()
        try:
            self.store.save(state.capture(), step=state.counters.step, metric=metric)
        except WriteFailed as error:
            if self.config.on_full_disk == "stop":
                raise
            warnings.warn(f"not saved, training goes on: {error}", stacklevel=2)
            self.failed = str(error)
            return False
        finally:
            self.last_end = time.monotonic()
        self.spent += self.last_end - start
        self.saves += 1
        return True

    def advice(self) -> str:
        """What saving cost, and the interval that loses least for a given rate of failures.

        The classic optimum (Young 1974, Daly 2006): the square root of 2 × cost of a save × time between failures.
        """
        total = time.monotonic() - self.started
        if not self.saves:
            return "nothing was saved"
        cost = self.spent / self.saves
        text = f"{self.saves} saves of {cost * 1e3:.0f} ms took {100 * self.spent / max(total, 1e-9):.1f} % of the time"
        if self.config.failures_every:
            best = math.sqrt(2 * cost * self.config.failures_every)
            text += f"; with a failure every {self.config.failures_every:.0f} s, save every {best:.0f} s"
        return text


def resume(store: CheckpointStore, state: TrainState, *, exact: bool = True) -> list[str]:
    """Restore the newest sound checkpoint, if there is one; what a person should know about it, line by line.

    Raises ``UsageError`` where the run was another one, with the settings that differ, or where what was restored is
    not what was saved.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = store.load_latest()
    notes = [str(warning.message) for warning in caught]
    if found is None:
        return notes
    saved: Any = found.state
    _same_run(saved, state.config, found.path)
    changed = surprises(saved.get("environment", {}))
    state.restore(saved)
    if exact:
        state.check(saved)
    state.counters.resumes += 1
    if changed:
        notes.append(f"the environment is another one, so bits may differ: {'; '.join(changed)}")
    return [*notes, f"resumed from {found.path.name}"]


def _same_run(saved: object, config: Config, path: Path) -> None:
    known: object = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(known, dict) or "digests" not in saved:
        raise UsageError(f"{path} – not a checkpoint of this trainer; choose another --out")
    if lines := differences(known, config):
        text = "\n  ".join(lines)
        raise UsageError(
            f"{path} – saved by another run:\n  {text}\nuse those settings, or another --out; "
            "saving, logging and workers may change"
        )
