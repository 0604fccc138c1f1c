"""Reading what is damaged: described as far as it goes, measured, with the checkpoint that stands in for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from ckpttool.errors import CkpttoolError, printable
from ckpttool.formats import describe
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint


@dataclass(frozen=True, slots=True)
class Broken:
    """A checkpoint as far as it can be read, what its content is, and another one of the same run."""

    checkpoint: Checkpoint
    measures: Measures
    donor: Checkpoint | None = None
    notes: tuple[str, ...] = ()


def read_broken(
    path: str | os.PathLike[str],
    like: str | os.PathLike[str] | None,
    limits: Limits,
    progress: Callable[[int, int], None] | None,
) -> Broken:
    """Describe and measure. Raises ``CkpttoolError`` for what is no checkpoint, ``Unreadable``."""
    from ckpttool.measure import measure

    checkpoint = describe(path, limits, audit=True)
    if checkpoint.kind:
        raise CkpttoolError(f"{printable(os.fspath(path))} – this is {checkpoint.kind}, not a checkpoint")
    donor = None if like is None else _donor(like, limits)
    measures = measure(checkpoint, progress=progress)
    return Broken(checkpoint, replace(measures), donor)


def _donor(path: str | os.PathLike[str], limits: Limits) -> Checkpoint:
    found = describe(path, limits)
    where = printable(os.fspath(path))
    if found.kind or found.root is None:
        raise CkpttoolError(f"{where} – this is no checkpoint that could stand in for another")
    damage = [
        one for one in found.damage if one.rule in ("truncated", "directory-damaged", "pickle-malformed")
    ]
    if damage:
        raise CkpttoolError(f"{where} – is damaged itself: {damage[0].message}; name a sound one")
    return found
