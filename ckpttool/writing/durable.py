"""Files that are either as they were or complete: whatever fails in between, kills and power cuts included.

A file is written under a temporary name beside its target, flushed to the disk and renamed over it. A writer
holds a lock on what it writes, so that a later one can tell a file in progress from what a dead process left.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

from ckpttool.errors import WriteFailed
from ckpttool.units import size

LONGEST = 180
"""Bytes of the target's name that a temporary name repeats: file systems end at 255."""

_TEMPORARY = re.compile(r"\.ckpttool-[0-9a-f]{12}\.tmp")
_ENDING = "SIGTERM", "SIGHUP"


class Replacement(io.BufferedRandom):
    """The temporary file, readable and writable. ``path`` is where it lies, ``target`` what it will be.

    Once the ``with`` block has ended well it is ``placed``, and ``kept`` is where the file that it replaced went.
    """

    def __init__(self, descriptor: int, path: Path, target: Path) -> None:
        super().__init__(io.FileIO(descriptor, "r+"), 1 << 16)
        self.path = path
        self.target = target
        self.kept: Path | None = None
        self.placed = False


@contextmanager
def replacing(
    path: str | os.PathLike[str],
    *,
    keep: str | os.PathLike[str] | None = None,
    overwrite: bool = True,
    expected: int = 0,
) -> Iterator[Replacement]:
    """Write a file whole or not at all: it stands under ``path`` only after the block has ended well.

    ``keep`` is a name for the file that was there; where that name is taken, a number is added. Without
    ``overwrite`` a file that is there by the end is an error too. ``expected`` is the number of bytes that the
    disk must have room for. A link is followed: what it points to is replaced. On any failure everything is
    as before. Raises ``WriteFailed``.
    """
    with _in_words(path):
        target = _target(path)
        if not overwrite and target.exists():
            raise _taken(path)
        need_room(target.parent, expected, path)
        sweep(target)
        with _until_ended(), _temporary(target) as file:
            yield file
            file.flush()
            _take_over(file.fileno(), target)
            flush_to_disk(file.fileno())
            file.kept = _put_in_place(file, keep, overwrite=overwrite)
            file.placed = True
            flush_folder(target.parent)


@contextmanager
def publishing(path: str | os.PathLike[str], *, expected: int = 0) -> Iterator[Path]:
    """Write a folder whole or not at all: yields an empty folder that gets its name after the block.

    The target must not exist, or be an empty folder: a folder with something in it is never replaced. Its
    files are flushed to the disk. Raises ``WriteFailed``.
    """
    with _in_words(path):
        target = _folder_target(path)
        need_room(target.parent, expected, path)
        sweep(target)
        with _until_ended(), _temporary_folder(target) as folder:
            yield folder
            for found in sorted(folder.rglob("*")):
                _flush_path(found)
            flush_folder(folder)
            folder.rename(target)
            flush_folder(target.parent)


def backup_name(path: str | os.PathLike[str]) -> Path:
    """Where the old file goes by default: its own name and ``.bak``, beside it."""
    target = Path(os.path.realpath(path))
    return target.with_name(f"{target.name}.bak")


def need_room(folder: Path, nbytes: int, where: str | os.PathLike[str]) -> None:
    """Raise ``WriteFailed`` where a folder's disk has less than this many bytes free. Asks the file system."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise WriteFailed(where, f"needs {size(nbytes)}, and the disk has {size(free)} free; free some space")


def sweep(target: Path) -> None:
    """Remove what dead writers of this target left beside it; files that a live one holds stay."""
    start = f".{_short(target.name)}"
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):  # noqa: PTH208 - names are compared, not paths
            if name.startswith(start) and _TEMPORARY.fullmatch(name[len(start) :]):
                _remove_if_dead(target.parent / name)


# --- the target ------------------------------------------------------------------------------------------


def _target(path: str | os.PathLike[str]) -> Path:
    """The file behind links; raises ``WriteFailed`` where it can be none."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise WriteFailed(path, "a loop of symbolic links")
    _need_folder(target.parent, path)
    with contextlib.suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise WriteFailed(path, "is a folder; a folder is not replaced by a file")
        if not stat.S_ISREG(mode):
            raise WriteFailed(path, "is not a regular file")
    return target


def _folder_target(path: str | os.PathLike[str]) -> Path:
    target = Path(os.path.realpath(path))
    _need_folder(target.parent, path)
    if target.is_symlink():
        raise WriteFailed(path, "a loop of symbolic links")
    if target.is_dir() and any(target.iterdir()):
        raise WriteFailed(
            path, "the folder is there and not empty; a folder is never replaced, name a new one"
        )
    if target.exists() and not target.is_dir():
        raise WriteFailed(path, "is a file, and several files need a folder; name a new one")
    return target


def _need_folder(folder: Path, where: str | os.PathLike[str]) -> None:
    if not folder.exists():
        raise WriteFailed(where, f"the folder '{folder}' does not exist; make it first")
    if not folder.is_dir():
        raise WriteFailed(where, f"'{folder}' is not a folder")


def _taken(path: str | os.PathLike[str]) -> WriteFailed:
    return WriteFailed(path, "exists already; --force replaces it")


# --- temporary files -------------------------------------------------------------------------------------


def _short(name: str) -> str:
    while len(os.fsencode(name)) > LONGEST:
        name = name[:-1]
    return name


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{_short(target.name)}.ckpttool-{secrets.token_hex(6)}.tmp")


@contextmanager
def _temporary(target: Path) -> Iterator[Replacement]:
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


def _create(target: Path) -> tuple[Path, int]:
    """A sweep may take a new file in the moment before it is locked: then there is another."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    mode = stat.S_IMODE(target.stat().st_mode) & 0o666 if target.exists() else 0o666
    while True:
        path = _temporary_path(target)
        descriptor = os.open(path, flags, mode)
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    path = _temporary_path(target)
    path.mkdir()
    held = _open_folder(path)
    if held is not None:
        _lock(held)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_if_dead(path: Path) -> None:
    """A lock that can be had has no writer. Where locks do not work (None), nothing is removed."""
    if sys.platform == "win32":
        path.unlink()  # refused for a file that is open
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _lock(descriptor):
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


# --- into place ------------------------------------------------------------------------------------------


def _take_over(descriptor: int, target: Path) -> None:
    """Owner, where allowed, and permissions of the file that will be replaced."""
    try:
        old, new = target.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return
    if hasattr(os, "fchown") and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _put_in_place(file: Replacement, keep: str | os.PathLike[str] | None, *, overwrite: bool) -> Path | None:
    kept = _keep(file.target, Path(keep)) if keep is not None and file.target.exists() else None
    try:
        if sys.platform == "win32":
            file.close()  # an open file is not renamed there
        if overwrite:
            file.path.replace(file.target)
        else:
            _link(file.path, file.target)
    except BaseException:
        if kept is not None:
            kept.unlink(missing_ok=True)
        raise
    return kept


def _link(path: Path, target: Path) -> None:
    """Rename, unless something has the name by now; a link decides that in one step."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise _taken(target) from None
        path.rename(target)


def _keep(target: Path, wanted: Path) -> Path:
    """A second name for the old file, or a copy where the file system has no second names."""
    number = 0
    while True:
        name = wanted.with_name(f"{wanted.name}.{number}") if number else wanted
        try:
            os.link(target, name)
        except FileExistsError:
            number += 1
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT):
                raise
            return _copy(target, name)
        else:
            return name


def _copy(target: Path, name: Path) -> Path:
    with replacing(name, overwrite=False, expected=target.stat().st_size) as file, target.open("rb") as old:
        shutil.copyfileobj(old, file, 1 << 20)
    shutil.copystat(target, name)
    return name


# --- the disk --------------------------------------------------------------------------------------------


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
    descriptor = _open_folder(folder)
    if descriptor is None:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> int | None:
    return None if sys.platform == "win32" else os.open(folder, os.O_RDONLY | os.O_CLOEXEC)


def _flush_path(path: Path) -> None:
    if path.is_dir():
        flush_folder(path)
        return
    with path.open("rb+") as file:
        flush_to_disk(file.fileno())


# --- what may happen meanwhile -----------------------------------------------------------------------------


class _Ended(BaseException):
    """A signal that ends the process has come; it is sent again once everything is cleared away."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _until_ended() -> Iterator[None]:
    """Let the block clear up when the process is told to end; whoever handles the signal already is left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    ended = 0
    try:
        for number in ours:
            signal.signal(number, _raise_ended)
        yield
    except _Ended as error:
        ended = error.number
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if ended in ours:
            os.kill(os.getpid(), ended)


def _raise_ended(number: int, _frame: FrameType | None) -> None:
    raise _Ended(number)


@contextmanager
def _in_words(path: str | os.PathLike[str]) -> Iterator[None]:
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
