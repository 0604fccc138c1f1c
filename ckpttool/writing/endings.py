"""What may happen while a file is written: the process is told to end, or the system refuses."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ckpttool.errors import WriteFailed
from ckpttool.writing.shield import raise_or_wait
from ckpttool.writing.temporary import clear_own

_ENDING = "SIGTERM", "SIGHUP"


class _Ended(BaseException):
    """A signal that ends the process has come; it is sent again once everything is cleared away."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def until_ended() -> Iterator[None]:
    """Let the block clear up when the process is told to end; whoever handles the signal already is left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    watch = _Watch()
    try:
        try:
            for number in ours:
                signal.signal(number, watch)
            yield
        finally:
            watch.quiet = True
    finally:
        watch.quiet = True  # once more: the signal may have come just before the line above
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if watch.number:
            clear_own()  # the signal may have come in the middle of clearing up
            os.kill(os.getpid(), watch.number)


class _Watch:
    """Handles signals: the first one ends the block, unless it has ended already; later ones wait."""

    def __init__(self) -> None:
        self.number = 0
        self.quiet = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        first, self.number = not self.number, self.number or number
        if first and not self.quiet:
            raise_or_wait(_Ended(number))


@contextmanager
def in_words(path: str | os.PathLike[str]) -> Iterator[None]:
    """What the system refuses, as one line."""
    if "\0" in os.fspath(path):
        raise WriteFailed(path, "not a possible path: it holds a NUL byte")
    try:
        yield
    except OSError as error:
        known = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EFBIG: "larger than a file may be here",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission denied",
            errno.EPERM: "permission denied",
            errno.ENAMETOOLONG: "the name is too long for the file system",
        }
        why = known.get(error.errno or 0, error.strerror or str(error))
        raise WriteFailed(path, f"cannot be written: {why}") from error
