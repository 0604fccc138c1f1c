"""What happens to files around a save, counted; death at one of them, or at a byte; and the trace's own file."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ckpttool.determinism.orders import Orders

WATCHED = frozenset(
    "open os.rename os.remove os.mkdir os.rmdir os.symlink os.link os.truncate shutil.rmtree shutil.move".split()
)
"""Audit events of Python that change what lies on the disk; each is told before it happens."""

MOST = 200
"""Events of one save that are counted."""

_RANDOM = re.compile(r"[0-9a-f]{8,}")
"""What temporary names have at random: without it every repetition tells the same."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Pen:
    """Writes lines of a trace; the file is made with the first of them, so that helpers without training have none."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank, self.pid = folder, rank, os.getpid()
        self.file = -1
        self.head = b""

    def first(self, kind: str, **facts: Any) -> None:
        """The line that comes before all others."""
        self.head = _line(kind, facts)

    def write(self, kind: str, **facts: Any) -> None:
        """One line, with the system when this returns. Processes that were forked since write nothing."""
        if os.getpid() != self.pid:
            return
        if self.file < 0:
            self.file = _open(self.folder, self.rank)
            os.write(self.file, self.head)
        os.write(self.file, _line(kind, facts))


def _line(kind: str, facts: dict[str, Any]) -> bytes:
    return (json.dumps({"kind": kind, **facts}) + "\n").encode()


def _open(folder: Path, rank: int) -> int:
    """A new file for this process: the next number of its rank."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            return os.open(folder / f"r{rank}-{number}.jsonl", flags, 0o644)
        number += 1


class Window:
    """The time from the beginning of a save to the next training step: to it belongs what happens to files."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.pid = os.getpid()
        self.saves = 0  # of this process
        self.number = 0  # of the save whose window is open
        self.since = 0  # saves since the last step
        self.events: list[list[str]] = []

    def open(self, write: Callable[..., None]) -> int:
        """A save begins; its number."""
        self._tell(write)
        self.saves += 1
        self.since += 1
        self.number = self.saves
        return self.number

    def close(self, write: Callable[..., None]) -> int:
        """The next step begins; how many saves there were since the last one."""
        self._tell(write)
        found, self.since, self.number = self.since, 0, 0
        return found

    def _tell(self, write: Callable[..., None]) -> None:
        number, self.number = self.number, 0
        if number:
            write("files", save=number, events=self.events)
        self.events = []

    def event(self, event: str, args: Any) -> int:
        """Note an event; the how manieth of its save it is, 0 where it is none that counts."""
        if event not in WATCHED or len(self.events) >= MOST or os.getpid() != self.pid:
            return 0
        path = args[0] if args else ""
        if event == "open" and not for_writing(args):
            return 0
        if not isinstance(path, (str, bytes, os.PathLike)):
            return 0
        place = os.fsdecode(os.fspath(path))
        if place.startswith(("/dev/", "/proc/", str(self.orders.folder))):
            return 0
        name = os.path.basename(place)  # noqa: PTH119 - no object is made within an audit
        self.events.append([event, _RANDOM.sub("*", name)])
        return len(self.events)


def limit_files(nbytes: int) -> None:
    """From now on this process dies where a file grows beyond so many bytes, which it does up to there."""
    import resource  # not on every system

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    ctypes.CDLL(None).signal(int(signal.SIGXFSZ), None)  # Python ignores it, and lets the main thread alone change that


def for_writing(args: Any) -> bool:
    """Whether the arguments of the audit event ``open`` are those of a file that is to be written."""
    mode, flags = (*args, None, None, None)[1:3]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITES)
