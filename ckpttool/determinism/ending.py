"""How a recorded process ends, where that was ordered: after a step, by a signal, in a save. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ckpttool.determinism.disk import DiskLog
from ckpttool.determinism.events import limit_files
from ckpttool.determinism.orders import Orders

PATIENCE = 5.0
"""Seconds that a rank waits for others before it dies."""


class Ending:
    """Obeys the orders on how one process ends; ``write`` writes a line of its trace, ``disk`` what it did to files."""

    def __init__(self, orders: Orders, rank: int, write: Callable[..., None], disk: DiskLog | None = None) -> None:
        self.orders, self.rank, self.write, self.disk = orders, rank, write, disk
        self.is_signalled = False

    def after_step(self, number: int) -> None:
        """End, or ask the process to, where that was ordered for this step."""
        orders = self.orders
        if orders.last is not None and number >= orders.last:
            self.end(f"ended after step {number}")
        if orders.kill_at is None or number < orders.kill_at or not orders.means(self.rank):
            return
        if orders.signal == signal.SIGKILL:
            self._kill(number)
        orders.kill_at = None
        watch = threading.Timer(orders.grace, self.end, [f"killed {orders.grace:g} s after the signal"])
        watch.daemon = True
        watch.start()
        self._ask(number)

    def at_event(self, number: int, save: int, place: int) -> None:
        """The same before a file event of a save, after step ``number``."""
        if self.orders.kill_in_save == save and self.orders.event == place:
            self.end(f"killed inside save {save}")
        if self.is_signalled and self.orders.again == place:
            self.orders.again = 0
            self._ask(number)

    @contextlib.contextmanager
    def in_save(self, save: int) -> Iterator[None]:
        """Around a save itself: death before it, or at a byte of what it writes."""
        orders = self.orders
        if not orders.means(self.rank):
            yield
            return
        if orders.kill_in_save == save and orders.event == 0:
            self.end(f"killed as save {save} begins")
        if orders.torn != save:
            yield
            return
        self.write("end", why=f"killed at byte {orders.torn_at} of save {save}")
        limit_files(orders.torn_at)
        yield
        os.kill(os.getpid(), signal.SIGKILL)  # the file was smaller

    def end(self, why: str) -> None:
        """Write the last line and die."""
        self.write("end", why=why)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def _kill(self, number: int) -> None:
        if self.orders.only_rank is None:
            all_there(self.orders.folder, str(number), self.rank)
        if self.disk is not None:
            self.write("disk", events=self.disk.events)
        self.end(f"killed after step {number}")

    def _ask(self, number: int) -> None:
        self.is_signalled = True
        self.write("signalled", step=number, signal=self.orders.signal)
        os.kill(os.getpid(), self.orders.signal)


def all_there(folder: Path, place: str, rank: int) -> None:
    """Say that this rank came to a place, and wait until the others on this machine have, a few seconds at most.

    A launcher ends all processes as soon as one has died: without this a slower one would lose its last line.
    """
    world = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
    if world < 2:
        return
    name = f"there-{os.environ.get('MASTER_PORT', '')}-{place}"
    (folder / f"{name}-{rank}").touch()
    end = time.monotonic() + PATIENCE
    while len(list(folder.glob(f"{name}-*"))) < world and time.monotonic() < end:
        time.sleep(0.005)
