"""What a caller gives as a path."""

from __future__ import annotations

import os

from ckpttool.errors import UsageError, printable


def local_path(path: object, what: str) -> str:
    """A local path as text; raises ``UsageError`` for open files, for URLs and for what is no path at all."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        kind = type(path).__name__
        raise UsageError(f"{what} takes the path of a file, and this is of type {kind}")
    name = os.fsdecode(path)
    if "://" in name:
        raise UsageError(f"{printable(name)} – {what} takes local files; copy it from or to there")
    if not name:
        raise UsageError(f"{what} takes the path of a file, and this is empty")
    return name
