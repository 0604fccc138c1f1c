"""Files that are either as they were or complete: whatever fails in between, kills and power cuts included.

A file is written under a temporary name beside its target, flushed to the disk and renamed over it. A writer
holds a lock on what it writes, so that a later one can tell a file in progress from what a dead process left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ckpttool.errors import WriteFailed
from ckpttool.units import size
from ckpttool.writing.endings import in_words, until_ended
from ckpttool.writing.flushing import flush_folder, flush_path, flush_to_disk
from ckpttool.writing.temporary import Replacement, sweep, temporary_file, temporary_folder

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = [
    "Replacement",
    "backup_name",
    "flush_folder",
    "flush_to_disk",
    "need_room",
    "place",
    "prepared",
    "publishing",
    "replacing",
    "settle",
    "sweep",
]


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
    with in_words(path):
        target = _target(path)
        if not overwrite and target.exists():
            raise _taken(path)
        need_room(target.parent, expected, path)
        sweep(target)
        with until_ended(), temporary_file(target) as file:
            yield file
            if not file.settled:
                settle(file)
            file.kept = _put_in_place(file, keep, overwrite=overwrite)
            file.placed = True
            flush_folder(target.parent)


@contextmanager
def prepared(path: str | os.PathLike[str]) -> Iterator[Replacement]:
    """A file that stands under ``path`` once ``place`` was called, if it is; the folder's flush is the caller's.

    For a second file that goes with the one of ``replacing``, inside that block. Raises ``WriteFailed``.
    """
    target = _target(path)
    sweep(target)
    with temporary_file(target) as file:
        yield file


def settle(file: Replacement, *others: Replacement, pool: Executor | None = None) -> None:
    """Everything about the files that will be is on the disk, save their names; nothing may be written after this.

    ``pool`` flushes the others meanwhile: disks take several wishes at once.
    """
    waiting = []
    for one in (*others, file):
        one.flush()
        _take_over(one.fileno(), one.target)
        if pool is not None and one is not file:
            waiting.append(pool.submit(flush_to_disk, one.fileno()))
        else:
            flush_to_disk(one.fileno())
    for flushed in waiting:
        flushed.result()
    for one in (file, *others):
        one.settled = True


def place(file: Replacement) -> None:
    """Give a settled file its name."""
    _put_in_place(file, None, overwrite=True)
    file.placed = True


@contextmanager
def publishing(path: str | os.PathLike[str], *, expected: int = 0) -> Iterator[Path]:
    """Write a folder whole or not at all: yields an empty folder that gets its name after the block.

    The target must not exist, or be an empty folder: a folder with something in it is never replaced. Its
    files are flushed to the disk. Raises ``WriteFailed``.
    """
    with in_words(path):
        target = _folder_target(path)
        need_room(target.parent, expected, path)
        sweep(target)
        with until_ended(), temporary_folder(target) as folder:
            yield folder
            for found in sorted(folder.rglob("*")):
                flush_path(found)
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
        raise WriteFailed(path, "the folder is there and not empty; a folder is never replaced, name a new one")
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
