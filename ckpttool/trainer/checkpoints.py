"""When to save, where to, and what it costs; and finding the checkpoint to go on from."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpttool import CheckpointStore, CkpttoolError, UsageError, WriteFailed, load
from ckpttool.trainer.config import Config, differences, free
from ckpttool.trainer.distributed import first, in_first, rank, world
from ckpttool.trainer.signals import Signals
from ckpttool.trainer.state import TrainState, surprises

LEAST_INTERVAL = 1.0  # seconds between two saves that a budget asks for


class Saver:
    """Saves at steps, epochs, seconds, the best metric, signals, the end; measures what that costs.

    Raises ``Locked`` where another process trains in the folder, ``WriteFailed`` where it cannot be written.
    """

    def __init__(self, folder: Path, config: Config, signals: Signals, *, lower: bool) -> None:
        keep: dict[str, Any] = {"keep": config.keep, "every": config.keep_every or None, "best": config.keep_best}
        mine = in_first(lambda: CheckpointStore(folder, **keep, lower=lower))
        self.store = mine or CheckpointStore(folder, readonly=True)  # one process writes
        self.config, self.signals = config, signals
        self.saved_step = -1  # of the newest checkpoint
        self.spent, self.saves = 0.0, 0  # seconds that training waited for saves, and how many
        self.started = self.last_end = time.monotonic()  # this clock never jumps, whatever is done to the date
        self.first_step = 0
        self._thread = ThreadPoolExecutor(1, "save") if config.save_async else None
        self._writing: tuple[int, Future[Any]] | None = None  # the step, and what is being written of it

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        self.store.close()

    # --- when ------------------------------------------------------------------------------------------------

    def due(self, state: TrainState, *, epoch_ended: bool, is_best: bool) -> bool:
        """Whether a checkpoint is due after this step."""
        config, step = self.config, state.counters.step
        waited = time.monotonic() - self.last_end
        return (
            self.signals.take_save()
            or bool(config.save_every and step % config.save_every == 0)
            or bool(epoch_ended and config.save_every_epochs and state.position.epoch % config.save_every_epochs == 0)
            or bool(config.save_every_seconds and waited >= config.save_every_seconds)
            or self.within_budget(waited)
            or (is_best and config.keep_best > 0)
        )

    def within_budget(self, waited: float) -> bool:
        """Whether one more save leaves the share of time that all take, the best ones too, within the budget."""
        share = self.config.save_budget
        cost, elapsed = self.spent / max(1, self.saves), time.monotonic() - self.started
        return share > 0 and waited >= LEAST_INTERVAL and self.spent + cost <= share * (elapsed + cost)

    # --- how -------------------------------------------------------------------------------------------------

    def save(self, state: TrainState, metric: float | None = None) -> None:
        """Save now. A disk that takes no more stops the run or, with ``on_full_disk = go-on``, is a warning."""
        start, step = time.monotonic(), state.counters.step
        self.wait()
        captured = state.capture(sharded=self.config.save_as == "dcp")
        if self.config.save_as == "dcp":
            from ckpttool.trainer.shards import save_shards  # here: importing torch's distributed format takes seconds

            self._done(step, lambda: save_shards(self.store, captured, step, metric))
        elif self._thread is None:
            self._done(step, lambda: in_first(lambda: self.store.save(captured, step=step, metric=metric)))
        elif rank() == 0:
            copied = copy.deepcopy(captured)
            self._writing = step, self._thread.submit(self.store.save, copied, step=step, metric=metric)
        else:
            self._writing = step, Future()  # the first process's will be waited for
        self.last_end = time.monotonic()
        self.spent += self.last_end - start
        self.saves += 1

    def wait(self) -> None:
        """Wait until what is being written in the background stands; raises what went wrong with it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            step, written = writing
            self._done(step, lambda: in_first(written.result))

    def _done(self, step: int, act: Callable[[], object]) -> None:
        try:
            act()
        except WriteFailed as error:
            if self.config.on_full_disk == "stop":
                raise
            warnings.warn(f"not saved, training goes on: {error}", stacklevel=2)
        else:
            self.saved_step = step

    def advice(self, step: int) -> str:
        """What saving cost, and the interval that loses least for a given rate of failures.

        The classic optimum (Young 1974, Daly 2006): the square root of 2 × cost of a save × time between failures.
        """
        if not self.saves:
            return "nothing was saved"
        total = max(1e-9, time.monotonic() - self.started)
        cost, often = self.spent / self.saves, self.config.failures_every
        text = f"{self.saves} saves of {cost * 1e3:.0f} ms took {100 * self.spent / total:.1f} % of the time"
        if often and step > self.first_step:
            best = math.sqrt(2 * cost * often)
            steps = max(1, round(best * (step - self.first_step) / max(1e-9, total - self.spent)))
            text += f"; with a failure every {often:.0f} s, a save every {best:.0f} s ({steps} steps) loses least"
        return text

    # --- going on --------------------------------------------------------------------------------------------

    def resume(self, state: TrainState) -> list[str]:
        """Restore the newest sound checkpoint, if there is one; what a person should know about it, line by line.

        The first process finds it, and all take that one.

        Raises ``UsageError`` where the run was another one, with the settings that differ, and where what was
        restored is not what was saved; ``Damaged`` where there are checkpoints and none is sound.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what was skipped is told below
            found = in_first(self.store.load_latest)
        chosen = first(None if found is None else (found.path, found.step, found.skipped))
        if chosen is None:
            return []
        path, step, skipped = chosen
        saved: Any = None if found is None else found.state
        if saved is None:  # a folder, or this is not the first process
            saved = _pieces(path, state) if path.is_dir() else load(path)
        notes = [f"skipped {path.name}: {why}" for path, why in skipped]
        _same_run(saved, state.config, path)
        notes += weaker(saved, state.config)
        changed = surprises(saved["environment"])
        try:
            state.restore(saved, pieced=path.is_dir())
        except CkpttoolError as error:
            raise UsageError(f"{path} – {error}") from error
        counters, patience = state.counters, state.config.patience
        counters.stopped = bool(patience) and counters.bad_evaluations >= patience  # it may be another one now
        counters.resumes += 1
        self.saved_step = self.first_step = step
        if changed:
            notes.append(f"the environment is another one, so bits may differ: {'; '.join(changed)}")
        return [*notes, f"resumed from {path.name}"]


def _pieces(path: Path, state: TrainState) -> Any:
    from ckpttool.trainer.shards import load_shards

    return load_shards(path, state.model)


def weaker(saved: Any, config: Config) -> list[str]:
    """What a resume with other processes no longer promises; nothing where there are as many, alike."""
    before, now = len(saved["rng"]), world()
    if before == now:
        return []
    kept = "the state is the same to the bit, and every step sees the same samples"
    lost = "gradients are added in another order, dropout draws from other generators, batch norm sees other slices"
    return [f"weaker: {before} saved, {now} go on; {kept}; but {lost}: numbers drift from those of before"]


def _same_run(saved: object, config: Config, path: Path) -> None:
    known = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(saved, dict) or not isinstance(known, dict) or not {"digests", "environment"} <= saved.keys():
        raise UsageError(f"{path} – not a checkpoint of this trainer; choose another --out")
    if lines := differences(known, config):
        text = "\n  ".join(lines)
        raise UsageError(
            f"{path} – saved by another run:\n  {text}\nuse those settings, or another --out; "
            f"only these may change: {', '.join(sorted(free(config)))}"
        )
