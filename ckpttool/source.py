"""Where bytes lie: ranged reads from local files, memory and fsspec URLs. Opened read-only, always."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from typing import Protocol

from ckpttool.errors import MissingExtra, Unreadable
from ckpttool.model import REPEATED


class Source(Protocol):
    """A named, sized run of bytes that any thread may read at any offset."""

    name: str
    size: int

    def read(self, start: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` bytes from ``start``; fewer only at the end of the source."""
        ...

    def readinto(self, start: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``start``; the number of bytes read, short only at the end."""
        ...

    def window(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes of a range as one indexable object; large ranges are mapped, not copied."""
        ...

    def changed(self) -> bool:
        """Whether size or modification time moved since opening."""
        ...

    def close(self) -> None: ...


MAP_FROM = 32 << 20
"""Ranges above this many bytes are mapped where the platform allows."""


class LocalFile:
    """A regular file. Reads are positional, so threads share it without a lock."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._fd = -1  # for __del__, should opening fail
        self._fd = _open(self.name)
        facts = os.fstat(self._fd)
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise Unreadable(self.name, _file_kind(facts.st_mode))
        self.size = facts.st_size
        self._mtime = facts.st_mtime_ns
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None

    def read(self, start: int, nbytes: int) -> bytes:
        if start >= self.size or nbytes <= 0:
            return b""
        nbytes = min(nbytes, self.size - start)
        data = self._pread(nbytes, start)
        if len(data) == nbytes:
            return data
        buffer = bytearray(nbytes)
        return bytes(buffer[: self.readinto(start, memoryview(buffer))])

    def readinto(self, start: int, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer):
            got = self._preadinto(start + done, buffer[done:])
            if not got:
                break
            done += got
        return done

    def window(self, start: int, stop: int) -> bytes | memoryview:
        stop = min(stop, self.size)
        if stop - start <= MAP_FROM:
            return self.read(start, stop - start)
        with self._lock:
            if self._map is None:
                self._map = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)[start:stop]

    def fileno(self) -> int:
        """The open file's descriptor, for reading only."""
        return self._fd

    def changed(self) -> bool:
        facts = os.fstat(self._fd)
        return facts.st_size != self.size or facts.st_mtime_ns != self._mtime

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def _pread(self, nbytes: int, start: int) -> bytes:
        try:
            if hasattr(os, "pread"):
                return os.pread(self._fd, nbytes, start)
            with self._lock:
                os.lseek(self._fd, start, os.SEEK_SET)
                return os.read(self._fd, nbytes)
        except OSError as error:
            raise Unreadable(self.name, f"read failed at byte {start}: {error.strerror}") from error

    def _preadinto(self, start: int, buffer: memoryview) -> int:
        if not hasattr(os, "preadv"):
            data = self._pread(len(buffer), start)
            buffer[: len(data)] = data
            return len(data)
        try:
            return os.preadv(self._fd, [buffer], start)
        except OSError as error:
            raise Unreadable(self.name, f"read failed at byte {start}: {error.strerror}") from error


class Memory:
    """Bytes in this process. It does not pickle into another one, so only threads can measure it."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "<memory>") -> None:
        self.name = name
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    def read(self, start: int, nbytes: int) -> bytes:
        return bytes(self._view[start : start + max(nbytes, 0)])

    def readinto(self, start: int, buffer: memoryview) -> int:
        piece = self._view[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def window(self, start: int, stop: int) -> bytes | memoryview:
        return bytes(self._view[start:stop]) if stop - start <= MAP_FROM else self._view[start:stop]

    def changed(self) -> bool:
        return False

    def close(self) -> None:
        self._view = memoryview(b"")


class SimpleSource:
    """A source whose ``read`` makes new bytes each time: the rest follows from it."""

    name: str
    size: int

    def read(self, start: int, nbytes: int) -> bytes:
        raise NotImplementedError

    def readinto(self, start: int, buffer: memoryview) -> int:
        data = self.read(start, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def window(self, start: int, stop: int) -> bytes | memoryview:
        return self.read(start, stop - start)

    def changed(self) -> bool:
        return False

    def close(self) -> None:
        pass


class RemoteFile(SimpleSource):
    """A URL read through fsspec (the ``remote`` extra): one request for each range."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise MissingExtra("fsspec", "remote") from None
        self.name = url
        try:
            self._fs, self._path = fsspec.core.url_to_fs(url)
            facts = self._fs.info(self._path)
        except (OSError, ValueError, ImportError) as error:
            raise Unreadable(url, str(error) or type(error).__name__) from error
        if facts.get("type") == "directory" or facts.get("size") is None:
            raise Unreadable(url, "not a file with a known size")
        self.size = int(facts["size"])

    def read(self, start: int, nbytes: int) -> bytes:
        stop = min(start + nbytes, self.size)
        if stop <= start:
            return b""
        try:
            return bytes(self._fs.cat_file(self._path, start=start, end=stop))
        except OSError as error:
            raise Unreadable(self.name, f"read failed at byte {start}: {error}") from error


class Repeated(SimpleSource):
    """The same few bytes again and again: what is made up, as long as it has to be, without the memory for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        pattern, _, size = name.removeprefix(REPEATED).partition("/")
        try:
            self._pattern, self.size = bytes.fromhex(pattern), int(size)
        except ValueError as error:
            raise Unreadable(name, "not a pattern and a number of bytes") from error
        if not self._pattern:
            raise Unreadable(name, "a pattern of no bytes")

    def read(self, start: int, nbytes: int) -> bytes:
        nbytes = max(0, min(nbytes, self.size - start))
        skip = start % len(self._pattern)
        return (self._pattern * (-(-(skip + nbytes) // len(self._pattern))))[skip : skip + nbytes]


def open_source(where: str | os.PathLike[str]) -> Source:
    """Open a local path or a URL (``s3://…``, ``https://…``); raises ``Unreadable`` with the reason."""
    name = os.fspath(where)
    if name.startswith(REPEATED):
        return Repeated(name)
    return RemoteFile(name) if "://" in name else LocalFile(name)


def _open(path: str) -> int:
    # O_NONBLOCK so that a FIFO without a writer answers instead of hanging.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags)
    except (OSError, ValueError) as error:
        raise Unreadable(path, _why(error)) from error


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "not a possible path: it holds a NUL byte"
    known = {
        errno.ENOENT: "no such file or directory",
        errno.EACCES: "permission denied",
        errno.ELOOP: "a loop of symbolic links",
        errno.EISDIR: "a directory",
    }
    return known.get(error.errno or 0, error.strerror or str(error))


def _file_kind(mode: int) -> str:
    kinds = [
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO, not a regular file"),
        (stat.S_ISSOCK, "a socket, not a regular file"),
        (stat.S_ISCHR, "a character device, not a regular file"),
        (stat.S_ISBLK, "a block device, not a regular file"),
    ]
    return next((text for test, text in kinds if test(mode)), "not a regular file")
