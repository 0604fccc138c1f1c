"""Checkpoints that are folders: published whole, replaced and deleted so that no moment shows half of one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckpttool.errors import WriteFailed
from ckpttool.saving.load import damage_of
from ckpttool.verbs.seal import seal
from ckpttool.writing.durable import flush_folder
from ckpttool.writing.endings import in_words, until_ended
from ckpttool.writing.flushing import flush_path
from ckpttool.writing.temporary import temporary_folder

GOING, REPLACED = ".ckpttool-deleting", ".ckpttool-replaced"
"""What the hidden names of folders end with that are being deleted, or replaced by another of their name."""


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which after the block is verified, sealed and flushed, and then gets its name.

    A folder that has the name already stays until that moment; if the process is killed in it, ``clear`` brings it
    back. Raises ``WriteFailed``, also for what is not a sound checkpoint; then everything is as before. Costs three
    reads of what was written.
    """
    with in_words(target), until_ended(), temporary_folder(target) as folder:
        yield folder
        if why := damage_of(folder):
            raise WriteFailed(target, f"is not sound as it was written: {why}")
        seal(folder)
        for found in sorted(folder.rglob("*")):
            flush_path(found)
        flush_folder(folder)
        _put_in_place(folder, target)
        flush_folder(target.parent)
    if (old := _hidden(target, REPLACED)).exists():
        shutil.rmtree(old)


def _put_in_place(folder: Path, target: Path) -> None:
    old = _hidden(target, REPLACED)
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def delete_folder(path: Path) -> None:
    """Delete a checkpoint: it loses its name before it loses its first file."""
    going = _hidden(path, GOING)
    path.rename(going)
    flush_folder(path.parent)
    shutil.rmtree(going)


def clear(folder: Path, own: re.Pattern[str]) -> None:
    """Finish what a killed process had begun to delete or to replace, for names that match."""
    for place in sorted(folder.iterdir()):
        for end in (GOING, REPLACED):
            name = place.name[1 : -len(end)]
            if place.name != f".{name}{end}" or not own.fullmatch(name):
                continue
            if end == REPLACED and not (folder / name).exists():
                place.rename(folder / name)
                flush_folder(folder)
            else:
                shutil.rmtree(place)


def _hidden(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}{end}")
