"""What is written down while training: a CSV that a resume continues, TensorBoard scalars, a plot, progress."""

from __future__ import annotations

import csv
import html
import io
import sys
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpttool import MissingExtra, UsageError, WriteFailed
from ckpttool.trainer.config import Config
from ckpttool.trainer.state import TrainState

FIELDS = ("step", "epoch", "loss", "loss_average", "lr", "gradient_norm", "scale", "metric", "ema_metric")
HEADER = f"{','.join(FIELDS)}\r\n".encode()


class Log:
    """The log of one run. Rows after the step that a resume starts from are taken out first: they will come again.

    What a full disk does not take waits in memory with ``on_full_disk = go-on``, else ``WriteFailed`` is raised.
    """

    def __init__(self, folder: Path, step: int, config: Config) -> None:
        self.path = folder / "log.csv"
        self._goes_on, self._waiting = config.on_full_disk == "go-on", b""
        try:
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise WriteFailed(self.path, f"cannot be written: {error.strerror}") from error
        if not _cut(self._file, step):
            self._put(HEADER)
        self._board = _board(folder, step) if config.tensorboard else None
        self._progress = config.progress and sys.stderr.isatty()
        self._start, self._first, self._steps = time.monotonic(), step, config.steps

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waiting and self._goes_on:
            self._put(b"")
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._progress:
            sys.stderr.write("\n")

    def row(self, state: TrainState, **values: float) -> None:
        """One line of numbers, exact: floats are written so that they read back as they were."""
        step = state.counters.step
        cells = {"step": step, "epoch": state.position.epoch, **values}
        self._put(f"{','.join(repr(cells[name]) if name in cells else '' for name in FIELDS)}\r\n".encode())
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._progress:
            self._show(step, values)

    def _put(self, line: bytes) -> None:
        before, self._waiting = self._waiting, self._waiting + line
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not self._goes_on:
                raise WriteFailed(self.path, f"cannot be written: {error.strerror}") from error
            if not before:
                warnings.warn(f"{self.path} – {error.strerror}: rows wait until there is room", stacklevel=3)

    def _show(self, step: int, values: dict[str, float]) -> None:
        rate = (step - self._first) / max(1e-9, time.monotonic() - self._start)  # steps per second
        left = (self._steps - step) / rate if rate else 0.0  # seconds
        bar = "━" * round(20 * step / self._steps)
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if k in ("loss", "metric", "lr"))
        sys.stderr.write(f"\r{bar:·<20} {step}/{self._steps}  {numbers}  {rate:.0f} steps/s  {left:.0f} s left\x1b[K")


class Silence(Log):
    """The log of every process but the first."""

    def __init__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def row(self, state: TrainState, **values: float) -> None:
        pass


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


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "report") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


PICTURES = (".html", ".pdf", ".png", ".svg")


def need_plot(picture: Path) -> None:
    """Raise what ``plot`` would, before hours of training rather than after."""
    if picture.suffix not in PICTURES or not picture.absolute().parent.is_dir():
        raise UsageError(f"{picture} – a name in a folder that is there, that ends in {', '.join(PICTURES)}, is needed")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("matplotlib", "report") from error
    mpl.use("Agg")


def plot(log: Path, picture: Path, title: str = "") -> None:
    """Loss, metric and learning rate over steps: a picture, or a page that holds one, by suffix."""
    need_plot(picture)
    from matplotlib import pyplot

    rows = read_log(log)
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 8), layout="constrained")
    for axis, names in zip(axes, (("loss", "loss_average"), ("metric", "ema_metric"), ("lr",)), strict=True):
        for name in names:
            if found := [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]:
                axis.plot(*zip(*found, strict=True), label=name)
                axis.legend(loc="best")
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    page = picture.suffix == ".html"
    drawn = io.StringIO() if page else picture
    figure.savefig(drawn, format="svg" if page else picture.suffix[1:])
    pyplot.close(figure)
    if isinstance(drawn, io.StringIO):
        head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        picture.write_text(head + drawn.getvalue().partition("?>")[2], encoding="utf-8")
