"""Making the disk keep what was written, as far as each system can be asked to."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path


def flush_to_disk(descriptor: int) -> None:
    """Ask the system, and on macOS the drive too, to keep what was written. Costs what is not written yet."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # not every file system there knows it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def start_flushing(descriptor: int, start: int, nbytes: int) -> None:
    """Ask the system to begin writing a range to the disk, without waiting and without a promise (Linux alone).

    What is written while the next range is being copied need not be waited for at the end. Failures are for
    ``flush_to_disk`` to report.
    """
    if sys.platform != "linux":
        return
    begin = _sync_file_range()
    if begin is not None:
        begin(descriptor, start, nbytes, 2)  # SYNC_FILE_RANGE_WRITE


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        import ctypes

        found = ctypes.CDLL(None).sync_file_range
    except (ImportError, OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    made: Callable[[int, int, int, int], int] = found
    return made


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder, where the system can."""
    descriptor = open_folder(folder)
    if descriptor is None:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def open_folder(folder: Path) -> int | None:
    """A descriptor of a folder; None where the system has none."""
    return None if sys.platform == "win32" else os.open(folder, os.O_RDONLY | os.O_CLOEXEC)


def flush_path(path: Path) -> None:
    """Flush a file or a folder by its name."""
    if path.is_dir():
        flush_folder(path)
        return
    with path.open("rb+") as file:
        flush_to_disk(file.fileno())
