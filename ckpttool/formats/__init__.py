"""One module for each on-disk format, behind one small protocol; ``describe`` asks them all.

A format module has ``NAME``, ``sniff(source) -> bool`` and ``read(source, limits) -> Checkpoint``, which is total:
damage is data. ``read_thoroughly``, where present, also audits the headers that describing does not need.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from ckpttool.errors import Unreadable
from ckpttool.frozen import dataclass
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Damage
from ckpttool.source import Source, open_source


class Format(Protocol):
    """What a format module offers."""

    NAME: str

    def sniff(self, source: Source) -> bool: ...

    def read(self, source: Source, limits: Limits) -> Checkpoint: ...


_SINGLE = ("torch_zip", "torch_legacy", "torch_tar", "safetensors", "bare_pickle")
"""The formats of single files, the most specific first."""


def formats() -> tuple[Format, ...]:
    """The modules of every single-file format, in the order in which they are asked."""
    return tuple(cast(Format, import_module(f"ckpttool.formats.{name}")) for name in _SINGLE)


def describe(path: str | os.PathLike[str], limits: Limits = DEFAULT, audit: bool = False) -> Checkpoint:
    """Describe the checkpoint at a path or URL from its headers; nothing in it is imported or run.

    A directory is read as the sharded or framework checkpoint that it is. ``audit`` also reads every header
    that the tree does not need (data descriptors, gaps, end records). Raises ``Unreadable`` where the path cannot be
    opened or the directory holds no checkpoint; a bad file is a result with ``damage``.
    """
    name = os.fspath(path)
    composite = _composite(name)
    if composite is not None:
        with collector_paused():
            return composite.read_path(name, limits, _Members(limits, audit))
    source = open_source(name)
    try:
        with collector_paused():
            return describe_source(source, limits, audit)
    finally:
        source.close()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Within this block nobody looks for garbage in cycles.

    A tree of a million nodes makes none, and looking for it costs a quarter of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def describe_source(source: Source, limits: Limits = DEFAULT, audit: bool = False) -> Checkpoint:
    """Describe an open source; see ``describe``."""
    claims = [fmt for fmt in formats() if fmt.sniff(source)]
    from ckpttool.formats import foreign

    # What only starts like a pickle may be known for what it is.
    other = foreign.identify(source) if not claims or claims[0].NAME == "pickle" else None
    if other is not None:
        return other
    if not claims:
        return foreign.unknown(source)
    reader = getattr(claims[0], "read_thoroughly", claims[0].read) if audit else claims[0].read
    checkpoint: Checkpoint = reader(source, limits)
    damage = list(checkpoint.damage)
    damage += foreign.polyglot(source, [fmt.NAME for fmt in claims])
    if source.changed():
        damage.append(_in_progress(source.name))
    return replace(checkpoint, damage=tuple(damage))


def _in_progress(where: str) -> Damage:
    hint = "wait until the writer is done and run this again"
    return Damage("in-progress", where, "the file changed while it was read", hint=hint)


@dataclass(frozen=True, slots=True)
class _Members:
    """How the files of a set are described, by path or, inside of files, by source: as the set itself is."""

    limits: Limits
    audit: bool

    def __call__(self, one: str | Source) -> Checkpoint:
        if isinstance(one, str):
            return describe(one, self.limits, self.audit)
        return describe_source(one, self.limits, self.audit)


class _Composite(Protocol):
    def sniff_path(self, path: str) -> bool: ...

    def read_path(self, path: str, limits: Limits, describe_file: object) -> Checkpoint: ...


def _composite(path: str) -> _Composite | None:
    """The module that reads a set of files, for a directory or an index file; None for a single file."""
    if "://" in path or not (Path(path).is_dir() or path.endswith(".index.json")):
        return None
    for name in ("sharded", "dcp", "directory"):
        module = cast(_Composite, import_module(f"ckpttool.formats.{name}"))
        if module.sniff_path(path):
            return module
    if Path(path).is_dir():
        raise Unreadable(path, "a directory that holds no checkpoint")
    return None
