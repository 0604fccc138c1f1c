"""One writer at a time: locks that the system takes back when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckpttool.errors import Locked, WriteFailed, printable
from ckpttool.writing.shield import shielded
from ckpttool.writing.temporary import disown, own, temporary_path

NAME = ".ckpttool.lock"

PATIENCE = 60.0
"""Seconds to wait for a writer that is just giving a file its name, which takes milliseconds."""

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class FolderLock:
    """Held from construction to ``release``. Raises ``Locked`` where another process holds it, else ``WriteFailed``.

    ``flock``: given back by the kernel at the end of the process, SIGKILL included, so it is never stale; children
    that this process forks do not hold it. On NFS it holds between machines from Linux 2.6.12 on, unless mounted with
    ``local_lock``; where the file system has no locks at all, ``held`` is False and nothing is promised.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._fd = -1
        try:
            self._fd, taken = _taken(self.path)
        except OSError as error:
            raise WriteFailed(folder, f"cannot be written: {error.strerror}") from error
        if taken is False:
            text = f"{printable(str(folder))} – {_holder(self._fd)} writes checkpoints here; wait for it or end it"
            self._close()
            raise Locked(text)
        self.held = taken is True
        _held.add(self)
        with contextlib.suppress(OSError):  # who holds it is for people to read; a full disk is no reason to stop
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)

    @property
    def mine(self) -> bool:
        """Whether this process may write: not after ``release``, and not in a child of the one that took it."""
        return self._fd >= 0

    def release(self) -> None:
        """Give the folder back; more than once does nothing."""
        if self._fd >= 0:
            _unlock(self._fd)
            self._close()

    def _close(self) -> None:
        descriptor, self._fd = self._fd, -1
        _close(descriptor)


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _drop_in_child() -> None:
    """A forked child has the same open file, and would keep the folder locked after its parent's end."""
    for lock in list(_held):
        if lock.mine:
            lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)


@contextmanager
def turn(target: Path) -> Iterator[None]:
    """The only one in this block for a target, among the threads and processes of this machine.

    A lock file stands beside the target meanwhile, named like a temporary file, so that a sweep takes what a kill
    leaves. Raises ``Locked`` after ``PATIENCE`` seconds. Where the file system has no locks, nothing is promised.
    """
    path = temporary_path(target, "0" * 12)
    end = time.monotonic() + PATIENCE
    while (descriptor := _one_turn(path)) is None:
        if time.monotonic() > end:
            raise Locked(f"{printable(str(target))} – another writer has been replacing it for {PATIENCE:.0f} s")
        time.sleep(0.005)
    try:
        yield
    finally:
        with shielded():
            with contextlib.suppress(OSError):
                path.unlink()  # under the lock: whoever waits finds that its file has no name, and makes another
            disown(path)
            _unlock(descriptor)
            _close(descriptor)


def _one_turn(path: Path) -> int | None:
    """The lock file, held; None where another has it."""
    with shielded():
        descriptor, taken = _taken(path)
        if taken is not False:
            own(path)
            return descriptor
        _close(descriptor)
        return None


def _taken(path: Path) -> tuple[int, bool | None]:
    """An open lock file and whether its lock could be had; None where the file system has no locks."""
    while True:
        descriptor = os.open(path, _FLAGS, 0o644)
        try:
            taken = _lock(descriptor)
            if taken is not True or _named(descriptor, path):
                return descriptor, taken
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _named(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one of that name: its last holder may have removed it meanwhile."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _lock(descriptor: int) -> bool | None:
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _unlock(descriptor: int) -> None:
    """Give a lock back outright: closing alone would leave it with a child that was forked meanwhile."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _close(descriptor: int) -> None:
    """What was written through it is for people to read, and its lock is gone: no failure here matters."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    holder = printable(os.pread(descriptor, 200, 0).decode(errors="replace").strip())
    pid, _, host = holder.partition(" ")
    return f"process {pid} on {host}" if host else "another process"
