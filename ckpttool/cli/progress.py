"""A progress bar on stderr, for work that takes longer than a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 0.5
"""Seconds of work before a bar appears; rich is not even imported for less."""


class Bar:
    """Called with bytes done and bytes in all, from any thread. Another total is the next file's."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        with self._lock:
            if self._bar is None and time.monotonic() - self._start >= PATIENCE:
                self._show()
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Wipe the bar away."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("measuring", total=None)
        self._bar.start()


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar to report to while the block runs; None where none is wanted."""
    if not wanted:
        yield None
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.close()
