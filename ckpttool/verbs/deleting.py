"""Deleting a checkpoint so that at no moment half of one looks whole, and finishing what was interrupted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ckpttool.errors import CkpttoolError, WriteFailed
from ckpttool.formats import describe
from ckpttool.formats.folders import INDEX
from ckpttool.manifest import SIDECAR
from ckpttool.verbs.runs import Candidate
from ckpttool.writing.durable import flush_folder

GOING = ".ckpttool-deleting"
"""What the hidden name of something ends with that is being deleted."""


def delete_checkpoint(candidate: Candidate, others: Collection[Candidate], root: Path) -> None:
    """Delete a checkpoint with its manifests; what ``others`` are made of stays. Raises ``WriteFailed``.

    A file or folder gets a hidden name first, durably, and ``finish_deletions`` finds what an interruption leaves. An
    index goes after its shards; no file goes that another one uses, and none that lies elsewhere. Folders below
    ``root`` that are empty then go as well.
    """
    place = Path(candidate.path)
    if any(_within(path, place) for other in others for path in other.targets):
        raise WriteFailed(place, "holds other checkpoints, and is not deleted")
    try:
        used = {os.path.realpath(file) for other in others for file in _files(other.targets)}
        whole = place.is_dir() and not place.is_symlink()
        for path in [place] if whole else map(Path, candidate.targets):
            _delete(path, used)
        flush_folder(_without_empty(place.parent, root))
    except OSError as error:
        raise WriteFailed(place, f"cannot be deleted: {error.strerror}") from error


def finish_deletions(root: Path) -> None:
    """Delete what an interrupted run had begun to delete below a folder. Raises ``WriteFailed``."""
    try:
        left = [
            Path(here, name)
            for here, folders, files in os.walk(root)
            for name in (*folders, *files)
            if name.startswith(".") and name.endswith(GOING)
        ]
        for path in left:
            _delete_hidden(path)
            _without_empty(path.parent, root)
    except OSError as error:
        raise WriteFailed(root, f"cannot be cleared: {error.strerror}") from error


def _without_empty(folder: Path, root: Path) -> Path:
    """Remove a folder and those around it as long as they are empty; the one that stays."""
    while folder != root and root in folder.parents and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
    return folder


def _within(path: str, folder: Path) -> bool:
    return folder in Path(path).parents


def _delete(place: Path, used: Collection[str]) -> None:
    if place.name.endswith(INDEX):
        _delete_set(place, used)
        return
    going = place.with_name(f".{place.name}{GOING}")
    if going.exists():
        _delete_hidden(going)
    place.rename(going)
    flush_folder(place.parent)
    _delete_hidden(going)


def _delete_set(index: Path, used: Collection[str]) -> None:
    """Shards first: an index that lacks some is seen to be partial, and shards without one are not."""
    for file in _shards(index):
        if os.path.realpath(file) not in used:
            file.unlink(missing_ok=True)
    index.with_name(index.name + SIDECAR).unlink(missing_ok=True)
    index.unlink()


def _delete_hidden(going: Path) -> None:
    """A folder with all in it; a file with its manifest, itself last."""
    if going.is_dir() and not going.is_symlink():
        shutil.rmtree(going)
        return
    place = going.with_name(going.name[1 : -len(GOING)])
    if not place.exists():
        place.with_name(place.name + SIDECAR).unlink(missing_ok=True)
    going.unlink()


def _shards(index: Path) -> Iterator[Path]:
    from ckpttool.formats.sharded import is_plain, read_index
    from ckpttool.limits import DEFAULT

    try:
        names = set(read_index(str(index), DEFAULT).weight_map.values())
    except CkpttoolError:
        return
    yield from (index.parent / name for name in sorted(names) if is_plain(name))


def _files(targets: Iterable[str]) -> Iterator[str]:
    """Every file that some checkpoints are made of."""
    for target in targets:
        yield target
        if target.endswith(INDEX):
            try:
                yield from describe(target).files
            except CkpttoolError:
                continue
