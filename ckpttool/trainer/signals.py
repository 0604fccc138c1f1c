"""Signals that ask for a checkpoint: noted when and where they come, obeyed at the next step's end by all processes."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from ckpttool.trainer.distributed import most

STOP, SAVE = ("SIGTERM", "SIGINT"), ("SIGUSR1",)


class Signals:
    """SIGTERM, Ctrl-C: save and stop; a second one stops at once. SIGUSR1: save and go on. Handlers are put back."""

    def __init__(self) -> None:
        self.stop = ""  # the signal that asked to stop, once all processes know of it
        self.noted = 0  # the one that came here
        self.save = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # nobody else may
            for name in (*STOP, *SAVE):
                if number := getattr(signal, name, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name in SAVE:
            self.save = True
        elif self.noted:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        else:
            self.noted = number

    def agree(self, due: bool) -> bool:
        """Tell the others what came here, and hear of theirs; whether a save is due in any process."""
        number, save = most(self.noted, due)
        self.stop = signal.Signals(number).name if number else ""
        return bool(save)

    def take_save(self) -> bool:
        """Whether a save was asked for since the last call."""
        asked, self.save = self.save, False
        return asked


def leave_to_parent(_worker: int) -> None:
    """What a process that loads data does with Ctrl-C, which the terminal sends to it too: nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
