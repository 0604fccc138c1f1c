"""Signals that ask for a checkpoint: they are noted when they come and obeyed at the next step's end."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Signals:
    """SIGTERM: save and stop. SIGUSR1: save and go on. A second SIGTERM stops at once, without saving."""

    def __init__(self) -> None:
        self.stop = False
        self.save = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_stop)
            if hasattr(signal, "SIGUSR1"):
                signal.signal(signal.SIGUSR1, self._on_save)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.stop:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.stop = True

    def _on_save(self, _number: int, _frame: FrameType | None) -> None:
        self.save = True

    def take_save(self) -> bool:
        """Whether a save was asked for since the last call."""
        asked, self.save = self.save, False
        return asked
