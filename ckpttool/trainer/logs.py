"""What is written down while training: a CSV that a resume continues, TensorBoard scalars, a plot, progress."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpttool import MissingExtra
from ckpttool.trainer.config import Config

FIELDS = ("step", "epoch", "loss", "lr", "gradient_norm", "scale", "metric", "ema_metric")


class Log:
    """The log of one run. Rows after the step that a resume starts from are taken out first: they will come again."""

    def __init__(self, folder: Path, step: int, config: Config) -> None:
        self.path = folder / "log.csv"
        kept = [row for row in read_log(self.path) if int(row["step"]) <= step]
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, FIELDS, restval="")
        self._rows.writeheader()
        self._rows.writerows(kept)
        self._board = _board(folder, step) if config.tensorboard else None
        self._progress = config.progress and sys.stderr.isatty()
        self._start, self._first, self._steps = time.monotonic(), step, config.steps

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._progress:
            sys.stderr.write("\n")

    def row(self, step: int, **values: float | int) -> None:
        """One line of numbers, exact: floats are written so that they read back as they were."""
        self._rows.writerow(
            {"step": step, **{k: repr(v) if isinstance(v, float) else v for k, v in values.items()}}
        )
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._progress:
            self._show(step, values)

    def _show(self, step: int, values: dict[str, float]) -> None:
        rate = (step - self._first) / max(1e-9, time.monotonic() - self._start)  # steps per second
        left = (self._steps - step) / rate if rate else 0.0  # seconds
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if k in ("loss", "metric", "lr"))
        text = f"{step}/{self._steps}  {numbers}  {rate:.0f} steps/s  {left:.0f} s left"
        sys.stderr.write(f"\r{text}\x1b[K")


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log; a last line that was cut off is left out. Empty where there is no log."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            row
            for row in csv.DictReader(file)
            if (row.get("step") or "").isdecimal() and None not in row.values()
        ]


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "report") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def plot(log: Path, picture: Path) -> None:
    """Loss, learning rate and metric over steps as a picture; its format by suffix (png, svg, pdf)."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("matplotlib", "report") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    rows = read_log(log)
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 8), layout="constrained")
    for axis, names in zip(axes, (("loss",), ("metric", "ema_metric"), ("lr",)), strict=True):
        for name in names:
            found = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            axis.plot(*zip(*found, strict=True), label=name) if found else None
        axis.legend(loc="best")
    axes[-1].set_xlabel("step")
    figure.savefig(picture)
    pyplot.close(figure)
