"""What a run itself says of its newest checkpoint: small files that frameworks write, and links.

Sources: DeepSpeed 0.19 ``engine.save_checkpoint`` (``latest``), Megatron-LM ``checkpointing.py``
(``latest_checkpointed_iteration.txt``), mmengine 0.11 ``runner/checkpoint.py`` and detectron2 / fvcore
``checkpoint.py`` (``last_checkpoint``), Composer ``checkpoint_saver.py`` (``latest-rank0.pt.symlink``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from ckpttool.errors import printable

LONGEST = 4096
"""Bytes of a tracker that are read: one path."""


@dataclass(frozen=True, slots=True)
class Tracker:
    """A file or link that names a checkpoint. ``says`` is its text, ``target`` the path that it stands for.

    ``commits`` says that the framework writes it last: what is newer than its checkpoint was not finished. ``there``
    tells whether the target exists.
    """

    path: str
    says: str
    target: str
    commits: bool
    there: bool


def _tag(folder: Path, text: str) -> Path:
    return folder / text


def _iteration(folder: Path, text: str) -> Path:
    return folder / (f"iter_{int(text):07d}" if text.isascii() and text.isdigit() else text)


def _named(folder: Path, text: str) -> Path:
    """Absolute paths do not survive a move of the run: then the file of that name beside counts."""
    beside = folder / PurePath(text.replace("\\", "/")).name
    return beside if os.path.lexists(beside) or not Path(text).is_absolute() else Path(text)


_KNOWN: dict[str, tuple[Callable[[Path, str], Path], bool]] = {
    "latest": (_tag, True),
    "latest_checkpointed_iteration.txt": (_iteration, True),
    "last_checkpoint": (_named, False),
}
_LINK_TEXT = ".symlink"


def trackers(folders: Iterable[Path]) -> tuple[Tracker, ...]:
    """The trackers that stand in some folders. Costs one listing of each; what cannot be read is left out."""
    return tuple(found for folder in folders for found in _in(folder))


def _in(folder: Path) -> Iterator[Tracker]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        found = _link(folder, entry) if entry.is_symlink() else _file(folder, entry)
        if found is not None:
            yield found


def _link(folder: Path, entry: os.DirEntry[str]) -> Tracker | None:
    says = os.readlink(entry.path)  # noqa: PTH115 - the text, not a path
    target = folder / says
    return Tracker(entry.path, says, os.path.normpath(target), False, target.exists())


def _file(folder: Path, entry: os.DirEntry[str]) -> Tracker | None:
    how, commits = _KNOWN.get(entry.name, (_named if entry.name.endswith(_LINK_TEXT) else None, False))
    if how is None or not entry.is_file():
        return None
    try:
        with Path(entry.path).open("rb") as file:
            says = file.read(LONGEST).decode("utf-8", "replace").strip()
        target = how(folder, says) if says and "\0" not in says else None
        there = target is not None and target.exists()
    except (OSError, ValueError):
        return None
    return Tracker(entry.path, says, "" if target is None else os.path.normpath(target), commits, there)


def complaint(tracker: Tracker, wrong: str = "") -> str:
    """What is wrong with what a tracker names, in one line; ``wrong`` says it where the checkpoint is there."""
    where = printable(tracker.path)
    if not tracker.says:
        return f"{where} – empty: it names no checkpoint"
    if not tracker.there:
        return f"{where} – names '{printable(tracker.says)}', which is not there"
    return f"{where} – names '{printable(tracker.says)}', which will not do: {wrong}"
