"""One writer for each folder: a lock that the system takes back when its holder dies, however it dies."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from ckpttool.errors import Locked, WriteFailed, printable

NAME = ".ckpttool.lock"


class FolderLock:
    """Held from construction to ``release``. Raises ``Locked`` where another process holds it.

    ``flock``: given back by the kernel at the end of the process, SIGKILL included, so it is never stale. On NFS it
    holds between machines from Linux 2.6.12 on, unless mounted with ``local_lock``; where the file system
    has no locks at all, ``held`` is False and nothing is promised.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise WriteFailed(folder, f"cannot be written: {error.strerror}") from error
        try:
            self.held = self._take()
        except BaseException:
            os.close(self._fd)
            raise
        if self.held:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)

    def _take(self) -> bool:
        try:
            import fcntl
        except ImportError:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            holder = printable(os.pread(self._fd, 200, 0).decode(errors="replace").strip())
            pid, _, host = holder.partition(" ")
            where = f"process {pid} on {host}" if host else "another process"
            text = (
                f"{printable(str(self.path.parent))} – {where} writes checkpoints here; wait for it or end it"
            )
            raise Locked(text) from None
        return True

    def release(self) -> None:
        """Give the folder back; more than once does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
