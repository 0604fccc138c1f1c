"""``ckpttool.CheckpointStore``: a folder of checkpoints that always holds a good one."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpttool.errors import CkpttoolError, UsageError, WriteFailed, printable
from ckpttool.manifest import sidecar
from ckpttool.retention import Item, Kept, reasons_to_keep
from ckpttool.saving.load import load
from ckpttool.saving.lock import FolderLock
from ckpttool.saving.save import Saved, save
from ckpttool.verbs.verify import verify
from ckpttool.writing.durable import flush_folder, replacing

METRICS = "metrics.json"
"""The metric of each step, where one was given: what `best` is chosen by."""

_NAME = re.compile(r"step-(\d{8,})\.pth")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint that was loaded: its content, its step and path, and the newer ones that were not sound."""

    state: Any
    step: int
    path: Path
    skipped: tuple[tuple[Path, str], ...] = ()


class CheckpointStore:
    """The checkpoints of one run in one folder, written by one process at a time.

    ``keep`` is how many of the last stay, ``every`` keeps those whose step is a multiple of it, ``best`` as many by
    ``metric`` (lower is better unless ``lower`` is off). None of the old ones goes before the new one is on the disk
    and verified. The folder is made if it is missing. Raises ``Locked`` where another process has it open for
    writing; ``readonly`` takes no lock and can only load.

    >>> with CheckpointStore("runs/x", keep=3) as store:  # doctest: +SKIP
    ...     found = store.load_latest()
    ...     store.save({"model": model.state_dict(), "step": 1000}, step=1000)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int | None = 3,
        every: int | None = None,
        best: int = 0,
        lower: bool = True,
        readonly: bool = False,
    ) -> None:
        if (keep is not None and keep < 1) or (every is not None and every < 1) or best < 0:
            raise UsageError(
                f"keep ({keep}) and every ({every}) are at least 1 or None, best ({best}) at least 0"
            )
        self.folder = Path(folder)
        self.kept = Kept(keep, every, best, lower)
        self._damaged: set[Path] = set()  # found so by `load_latest`: they count for nothing
        self._lock: FolderLock | None = None
        if not readonly:
            _make(self.folder)
            self._lock = FolderLock(self.folder)

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # --- writing -----------------------------------------------------------------------------------------

    def save(self, state: object, *, step: int, metric: float | None = None) -> Saved:
        """Save, which reads back what was written, then let go of what need not stay.

        A step that is there already is replaced whole. Raises ``WriteFailed``; then nothing is lost. Costs what
        ``ckpttool.save`` costs.
        """
        if self._lock is None:
            raise UsageError(f"{printable(str(self.folder))} – this store is closed or open for reading only")
        if step < 0:
            raise UsageError(f"a step is counted from 0, and this is {step}")
        if metric is not None:
            self._note(step, metric)  # first: a metric without a checkpoint does no harm
        saved = save(state, self.path_of(step))
        self._damaged.discard(saved.path)
        self._let_go()
        return saved

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step stands."""
        return self.folder / f"step-{step:08d}.pth"

    def _note(self, step: int, metric: float) -> None:
        known = {**self.metrics(), step: metric}
        text = json.dumps(
            {str(k): v if math.isfinite(v) else repr(v) for k, v in sorted(known.items())}, indent=1
        )
        with replacing(self.folder / METRICS) as file:
            file.write(text.encode())

    def metrics(self) -> dict[int, float]:
        """The metric of each step that has one; empty where the file is missing or cannot be read."""
        try:
            found = json.loads((self.folder / METRICS).read_bytes())
            return {int(step): float(metric) for step, metric in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _let_go(self) -> None:
        metrics = self.metrics()
        sound = [(step, path) for step, path in self.steps() if path not in self._damaged]
        items = [Item(path.name, step, metrics.get(step)) for step, path in sound]
        stay = reasons_to_keep(items, self.kept)
        gone = [self.folder / item.name for item in items if item.name not in stay]
        for path in gone:
            # The manifest last: alone it does no harm, and without it nobody would say that it was sealed.
            path.unlink(missing_ok=True)
            sidecar(str(path)).unlink(missing_ok=True)
        if gone:
            flush_folder(self.folder)

    # --- reading -----------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[int, Path]]:
        """The checkpoints that are there, complete or not, by step."""
        names = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        found = [(int(match[1]), path) for path in names if (match := _NAME.fullmatch(path.name))]
        return sorted(found)

    def latest(self) -> Path | None:
        """The newest checkpoint whose every byte is verified; None if there is none."""
        return next((path for _, path, error in self._sound() if not error), None)

    def load_latest(self, *, map_location: object = "cpu", trust: Collection[str] = ()) -> Loaded | None:
        """Load the newest checkpoint that is sound; None if there is none.

        Warns for each newer one that had to be skipped, naming what is wrong with it.
        """
        skipped: list[tuple[Path, str]] = []
        for step, path in reversed(self.steps()):
            try:
                state = load(path, map_location=map_location, trust=trust)
            except CkpttoolError as error:
                skipped.append((path, str(error)))
                self._damaged.add(path)
                warnings.warn(f"skipped, an older checkpoint is taken: {error}", stacklevel=2)
                continue
            return Loaded(state, step, path, tuple(skipped))
        return None

    def _sound(self) -> Iterator[tuple[int, Path, str]]:
        for step, path in reversed(self.steps()):
            subject = verify([path]).subjects[0]
            bad = subject.error or ("damaged" if subject.verdict in ("damaged", "not-a-checkpoint") else "")
            yield step, path, bad


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(folder, f"cannot be made: {error.strerror}") from error
