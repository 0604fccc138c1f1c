"""Temporary files and folders beside their targets, locked by who writes them, swept when nobody does any more."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckpttool.writing.flushing import open_folder

LONGEST = 180
"""Bytes of the target's name that a temporary name repeats: file systems end at 255."""

_TEMPORARY = re.compile(r"\.ckpttool-[0-9a-f]{12}\.tmp")


_own: dict[Path, int] = {}
"""Temporary names of this process that may be there, with its number: a forked child has the same dict."""


class Replacement(io.BufferedRandom):
    """The temporary file, readable and writable. ``path`` is where it lies, ``target`` what it will be.

    ``settled``: its content is on the disk. Once the ``with`` block has ended well it is ``placed``, and ``kept``
    is where the file that it replaced went.
    """

    def __init__(self, descriptor: int, path: Path, target: Path) -> None:
        super().__init__(io.FileIO(descriptor, "r+"), 1 << 16)
        self.path = path
        self.target = target
        self.kept: Path | None = None
        self.settled = False
        self.placed = False


def own(path: Path) -> Path:
    """Remember a temporary name before anything has it; ``disown`` once nothing has."""
    _own[path] = os.getpid()
    return path


def disown(path: Path) -> None:
    """Forget a name."""
    _own.pop(path, None)


def clear_own() -> None:
    """Remove whatever this process has under temporary names: it is about to end, maybe while it clears up."""
    for path, pid in list(_own.items()):
        if pid == os.getpid():
            with contextlib.suppress(OSError):
                path.unlink()
                continue
            shutil.rmtree(path, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove what dead writers of this target left beside it; files that a live one holds stay."""
    start = f".{_short(target.name)}"
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):  # noqa: PTH208 - names are compared, not paths
            if name.startswith(start) and _TEMPORARY.fullmatch(name[len(start) :]):
                with contextlib.suppress(OSError):  # another sweep may have been quicker
                    _remove_if_dead(target.parent / name)


def sweep_folder(folder: Path, targets: re.Pattern[str]) -> None:
    """The same for every target whose whole name matches."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names are compared, not paths
            match = _TEMPORARY.search(name)
            if match and match.end() == len(name) and targets.fullmatch(name[1 : match.start()]):
                with contextlib.suppress(OSError):
                    _remove_if_dead(folder / name)


def _short(name: str) -> str:
    while len(os.fsencode(name)) > LONGEST:
        name = name[:-1]
    return name


def temporary_path(target: Path, token: str = "") -> Path:
    """A name beside the target that a sweep knows; ``token``, 12 hexadecimal digits, is drawn by lot by default."""
    return target.with_name(f".{_short(target.name)}.ckpttool-{token or secrets.token_hex(6)}.tmp")


@contextmanager
def temporary_file(target: Path) -> Iterator[Replacement]:
    """A new locked file beside the target, gone by the end unless it has been renamed."""
    path, descriptor = _create(target)
    file = Replacement(descriptor, path, target)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # what a full disk did not take is not wanted any more
            file.close()
        with contextlib.suppress(OSError):
            path.unlink()
        disown(path)


def _create(target: Path) -> tuple[Path, int]:
    """A sweep may take a new file in the moment before it is locked: then there is another."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    mode = stat.S_IMODE(target.stat().st_mode) & 0o666 if target.exists() else 0o666
    while True:
        path = own(temporary_path(target))
        try:
            descriptor = os.open(path, flags, mode)
        except OSError:
            disown(path)
            raise
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)
        disown(path)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new locked folder beside the target, gone by the end unless it has been renamed."""
    path = own(temporary_path(target))
    path.mkdir()
    held = open_folder(path)
    if held is not None:
        _lock(held)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        disown(path)
        if held is not None:
            os.close(held)


def _remove_if_dead(path: Path) -> None:
    """A lock that can be had has no writer. Where locks do not work (None), nothing is removed."""
    if sys.platform == "win32":
        path.unlink()  # refused for a file that is open
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _lock(descriptor) and os.fstat(descriptor).st_nlink:  # else its name may be another file's by now
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock could be had; None where the file system has none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True
