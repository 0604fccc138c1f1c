"""When to save and where to; and finding the checkpoint to go on from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ckpttool import CheckpointStore, CkpttoolError, SaveCosts, UsageError, WriteFailed, environment_changes, load
from ckpttool.trainer.config import Config, differences, free
from ckpttool.trainer.distributed import first, in_first, rank, world
from ckpttool.trainer.signals import Signals
from ckpttool.trainer.state import TrainState


class Saver(AbstractContextManager["Saver"]):
    """Saves at steps, epochs, seconds, the best metric, signals, the end; measures what that costs.

    Raises ``Locked`` where another process trains in the folder, ``WriteFailed`` where it cannot be written.
    """

    def __init__(self, folder: Path, config: Config, signals: Signals, *, lower: bool) -> None:
        keep: dict[str, Any] = {"keep": config.keep, "every": config.keep_every or None, "best": config.keep_best}
        mine = in_first(lambda: CheckpointStore(folder, **keep, lower=lower))
        self.store = mine or CheckpointStore(folder, readonly=True)  # one process writes
        self.config, self.signals, self.costs = config, signals, SaveCosts()
        self.saved_step = -1  # of the newest checkpoint
        self._thread = ThreadPoolExecutor(1, "save") if config.save_async else None
        self._writing: tuple[int, Future[Any]] | None = None  # the step, and what is being written of it

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        self.store.close()

    def due(self, state: TrainState, *, epoch_ended: bool, is_best: bool) -> bool:
        """Whether a checkpoint is due after this step."""
        config, step, epoch = self.config, state.counters.step, state.position.epoch
        return (
            self.signals.take_save()
            or bool(config.save_every and step % config.save_every == 0)
            or bool(epoch_ended and config.save_every_epochs and epoch % config.save_every_epochs == 0)
            or 0 < config.save_every_seconds <= self.costs.waited
            or self.costs.within(config.save_budget)
            or (is_best and config.keep_best > 0)
        )

    def save(self, state: TrainState, metric: float | None = None) -> None:
        """Save now. A disk that takes no more stops the run or, with ``on_full_disk = go-on``, is a warning."""
        with self.costs.saving():
            self.wait()
            step, pieces = state.counters.step, self.config.save_as == "dcp"
            captured = state.capture(sharded=pieces)
            if pieces:
                from ckpttool.trainer.shards import save_shards  # here: importing torch's distributed format: seconds

                self._done(step, lambda: save_shards(self.store, captured, step, metric))
            elif self._thread is None:
                self._done(step, lambda: in_first(lambda: self.store.save(captured, step=step, metric=metric)))
            elif rank() == 0:
                copied = copy.deepcopy(captured)
                self._writing = step, self._thread.submit(self.store.save, copied, step=step, metric=metric)
            else:
                self._writing = step, Future()  # the first process's will be waited for

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
        path, self.saved_step, skipped = chosen
        saved: Any = None if found is None else found.state
        if saved is None:  # a folder, or this is not the first process
            saved = _pieces(path, state) if path.is_dir() else load(path)
        _same_run(saved, state.config, path)
        changed = environment_changes(saved["environment"])
        try:
            state.restore(saved, pieced=path.is_dir())
        except CkpttoolError as error:
            raise UsageError(f"{path} – {error}") from error
        counters, patience = state.counters, state.config.patience
        counters.stopped = 0 < patience <= counters.bad_evaluations  # it may be another one now
        counters.resumes += 1
        return [
            *(f"skipped {path.name}: {why}" for path, why in skipped),
            *weaker(len(saved["rng"]), world()),
            *([f"the environment is another one, so bits may differ: {'; '.join(changed)}"] if changed else []),
            f"resumed from {path.name}",
        ]


def _pieces(path: Path, state: TrainState) -> Any:
    from ckpttool.trainer.shards import load_shards

    return load_shards(path, state.model)


def weaker(before: int, now: int) -> list[str]:
    """What a resume with another number of processes no longer promises."""
    kept = "the state is the same to the bit, and every step sees the same samples"
    lost = "gradients are added in another order, dropout draws from other generators, batch norm sees other slices"
    text = f"weaker: {before} saved, {now} go on; {kept}; but {lost}: numbers drift from those of before"
    return [text] if before != now else []


def _same_run(saved: object, config: Config, path: Path) -> None:
    known = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(saved, dict) or not isinstance(known, dict) or not {"digests", "environment"} <= saved.keys():
        raise UsageError(f"{path} – not a checkpoint of this trainer; choose another --out")
    if lines := differences(known, config):
        text, may = "\n  ".join(lines), ", ".join(sorted(free(config)))
        text += f"\nuse those settings, or another --out; only these may change: {may}"
        raise UsageError(f"{path} – saved by another run:\n  {text}")
