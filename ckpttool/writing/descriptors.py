"""Copies that the kernel makes between open files: shared extents, else ranges, without a pass through memory."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import BinaryIO

FICLONERANGE = 0x4020940D
"""Linux: make a range of one file share the extents of another's. Source: ``linux/fs.h``."""

_SHARED = 4096
"""Extents are shared from multiples of the file system's block on; this is the usual one."""

_NOT_THIS_WAY = {
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ENOTTY,
    errno.ETXTBSY, errno.ENOTSOCK,
}  # fmt: skip
"""A kernel or file system that cannot do it; another way is tried. Anything else is the disk's own failure."""


def descriptor_of(file: BinaryIO) -> int | None:
    """The number under which the kernel knows a file that it can copy into; None for any other stream."""
    try:
        return file.fileno() if file.seekable() else None
    except (OSError, AttributeError):
        return None


def copied(source: int, output: int, start: int, at: int, nbytes: int) -> int | None:
    """Copy between descriptors; the number of bytes, short where the source ends, None where no way works."""
    done = _cloned(source, output, start, at, nbytes)
    for way in (_copy_file_range, _send_file):
        while done < nbytes:
            got = way(source, output, start + done, at + done, nbytes - done)
            if got is None:
                break
            if not got:
                return done
            done += got
        else:
            return done
    return None


def _cloned(source: int, output: int, start: int, at: int, nbytes: int) -> int:
    """Share extents where both ranges lie on blocks alike; the number of bytes that need no copy."""
    whole = nbytes - nbytes % _SHARED
    if start % _SHARED or at % _SHARED or not whole:
        return 0
    try:
        import fcntl

        fcntl.ioctl(output, FICLONERANGE, struct.pack("qQQQ", source, start, whole, at))
    except (ImportError, OSError):
        return 0
    return whole


def _copy_file_range(source: int, output: int, start: int, at: int, nbytes: int) -> int | None:
    if not hasattr(os, "copy_file_range"):
        return None
    return _tried(lambda: os.copy_file_range(source, output, min(nbytes, 1 << 30), start, at))


def _send_file(source: int, output: int, start: int, at: int, nbytes: int) -> int | None:
    if not hasattr(os, "sendfile"):
        return None
    os.lseek(output, at, os.SEEK_SET)
    return _tried(lambda: os.sendfile(output, source, start, min(nbytes, 1 << 30)))


def _tried(way: Callable[[], int]) -> int | None:
    try:
        return way()
    except OSError as error:
        if error.errno in _NOT_THIS_WAY:
            return None
        raise
