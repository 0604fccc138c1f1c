"""What is written down while training: a CSV that a resume continues, TensorBoard scalars."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ckpttool import MissingExtra, WriteFailed
from ckpttool.trainer.config import Config
from ckpttool.trainer.state import TrainState

FIELDS = ("step", "epoch", "loss", "loss_average", "lr", "gradient_norm", "scale", "metric", "ema_metric")
HEADER = f"{','.join(FIELDS)}\r\n".encode()
Watch = Callable[[int, dict[str, float]], None]
"""Who wants to hear of each row's step and numbers, too."""


class Log(AbstractContextManager["Log"]):
    """The log of one run. Rows after the step that a resume starts from are taken out first: they will come again.

    What a full disk does not take waits in memory with ``on_full_disk = go-on``, else ``WriteFailed`` is raised.
    """

    def __init__(self, folder: Path, step: int, config: Config, watch: Watch | None = None) -> None:
        self.path = folder / "log.csv"
        self._goes_on, self._waiting, self._watch = config.on_full_disk == "go-on", b"", watch
        try:
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise WriteFailed(self.path, f"cannot be written: {error.strerror}") from error
        if not _cut(self._file, step):
            self._put(HEADER)
        self._board = _board(folder, step) if config.tensorboard else None

    def __exit__(self, *_: object) -> None:
        if self._waiting and self._goes_on:
            self._put(b"")
        self._file.close()
        if self._board is not None:
            self._board.close()

    def row(self, state: TrainState, **values: float) -> None:
        """One line of numbers, exact: floats are written so that they read back as they were."""
        step = state.counters.step
        cells = {"step": step, "epoch": state.position.epoch, **values}
        self._put(f"{','.join(repr(cells[name]) if name in cells else '' for name in FIELDS)}\r\n".encode())
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._watch is not None:
            self._watch(step, values)

    def flush(self) -> None:
        """Let the disk keep what was written: rows that lie before a checkpoint do not come again after a power cut."""
        self._put(b"", flush=True)

    def _put(self, line: bytes, *, flush: bool = False) -> None:
        before, self._waiting = self._waiting, self._waiting + line
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
            if flush:
                os.fsync(self._file.fileno())
        except OSError as error:
            if not self._goes_on:
                raise WriteFailed(self.path, f"cannot be written: {error.strerror}") from error
            if not before:
                warnings.warn(f"{self.path} – {error.strerror}: rows wait until there is room", stacklevel=3)


def _cut(file: io.FileIO, step: int) -> int:
    """Leave the rows up to a step, in place, which takes no room on the disk; the bytes that are left."""
    file.seek(0)
    header, *rows = file.read().splitlines(keepends=True) or [b""]
    kept = len(header) if header == HEADER else 0
    for row in rows if kept else ():
        number = row.partition(b",")[0]
        if not (row.endswith(b"\n") and number.isdigit() and int(number) <= step):
            break
        kept += len(row)
    file.truncate(kept)
    return kept


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "report") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
