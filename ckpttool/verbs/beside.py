"""What lies beside the weights in a model's folder: what its ``config.json`` tells, and what becomes of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ckpttool.errors import Unreadable, printable
from ckpttool.frozen import dataclass
from ckpttool.migration import RuleFile
from ckpttool.migration.settings import SAID, settled
from ckpttool.model import Checkpoint, Scalar
from ckpttool.source import LocalFile
from ckpttool.stamps import Setting
from ckpttool.writing.sharded import INDEX

TOLD = {"config.json": "config", "params.json": "params"}
"""Files that tell a model's sizes: Hugging Face's and Meta's, and what their keys stand below in rules (``from``)."""

LARGEST = 1 << 20
"""Bytes of such a file that are read."""

SHOWN = 6


@dataclass(frozen=True, slots=True)
class Known:
    """Values that files beside the checkpoint tell to rules, and how they are told."""

    values: dict[str, Setting]
    notes: tuple[str, ...] = ()


def known_beside(
    rules: RuleFile, checkpoint: Checkpoint, facts: Mapping[str, Scalar], said: Mapping[str, Setting]
) -> Known:
    """Given names of rules that neither the user nor the checkpoint tells, and a file beside it does.

    ``facts`` are the checkpoint's plain values, ``said`` what the user says. Raises ``RuleError`` where a value that is
    needed is told nowhere.
    """
    if not any(given.paths for given in rules.given):
        return Known({})
    told = {key: one for key, one in _told(_folder(checkpoint)) if key not in facts}
    values = {key: value for key, (value, _) in told.items()}
    found = [one for one in settled(rules, {**values, **facts}, said) if one.source in told]
    notes = (
        f"{one.name} is {one.value}, as {printable(told[one.source][1])} says "
        f"({printable(one.source.partition('.')[2])}); --set {one.name}=VALUE says otherwise"
        for one in found
        if one.source != SAID
    )
    return Known({one.name: one.value for one in found}, tuple(notes))


def _folder(checkpoint: Checkpoint) -> Path | None:
    if "://" in checkpoint.source:
        return None
    path = Path(checkpoint.source)
    return path if path.is_dir() else path.parent


def _told(folder: Path | None) -> Iterator[tuple[str, tuple[Scalar, str]]]:
    """Every plain value of the files by its key, with the file."""
    for name, prefix in TOLD.items() if folder is not None else ():
        where = os.fspath(folder / name) if folder is not None else name
        for key, value in _flat(_document(where), prefix):
            yield key, (value, where)


def _document(where: str) -> object:
    """The JSON of a regular file; None for what is none."""
    try:
        file = LocalFile(where)
    except Unreadable:
        return None
    try:
        return json.loads(file.read(0, LARGEST)) if file.size <= LARGEST else None
    except (Unreadable, ValueError, RecursionError):
        return None
    finally:
        file.close()


def _flat(value: object, path: str) -> Iterator[tuple[str, Scalar]]:
    stack = [(path, value)]
    while stack:
        key, one = stack.pop()
        if isinstance(one, dict):
            stack += [(f"{key}.{name}", inner) for name, inner in one.items()]
        elif isinstance(one, (str, int, float)) and key != path:
            yield key, one


# --- files ----------------------------------------------------------------------------------------------------


def others(path: str | os.PathLike[str], checkpoint: Checkpoint) -> list[str]:
    """Files of a folder that was named, or of an index's folder, that are no part of the checkpoint."""
    name = os.fspath(path)
    folder = Path(name).parent if name.endswith(INDEX) else Path(name)
    if "://" in name or not folder.is_dir():
        return []
    read = {Path(one).name for one in (*checkpoint.files, checkpoint.source)}
    try:
        files = sorted(one.name for one in folder.iterdir() if one.is_file())
    except OSError:
        return []
    return [one for one in files if one not in read and not one.startswith(".")]


def fate(path: str | os.PathLike[str], checkpoint: Checkpoint, kept: bool, changed: bool) -> Sequence[str]:
    """What becomes of those files, in a sentence: copied with the folder (``kept``), or left where they are.

    ``changed`` says that the model is another one than ``config.json`` describes.
    """
    names = others(path, checkpoint)
    if not names:
        return ()
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = ", ".join(map(printable, names[:SHOWN])) + more
    config = "config.json" in names and changed
    if kept:
        tail = "; config.json describes the model as it was" if config else ""
        return (f"copied as they are: {listed}{tail}",) if config else ()
    tail = "config.json describes the model as it was" if config else "copy what the output's loader reads"
    return (f"left where they are: {listed}; {tail}",)
