"""The checkpoints of a run directory in the order in which they were written, told from names, counters and times."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ckpttool.errors import Unreadable
from ckpttool.formats.targets import find_targets

_PATTERNS = tuple(
    re.compile(rf"(?:^|[^a-z])(?:{words})[-_=.]?0*(\d+)(?!\d)")
    for words in (
        "global[-_]?step|step|steps",
        "ba|batch|iter|iteration|iters",
        "checkpoint|ckpt|update",
        "ep|epoch|epochs",
    )
)
"""What counts, the finest first: steps, batches and iterations, numbered checkpoints, epochs."""

_PLAIN = re.compile(r"(?:^|[-_.=])0*(\d+)(?=$|[-_.])")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint of a run. ``count`` is what its name counts and ``unit`` which kind of count that is, -1 for none.

    ``modified_ns`` is the time of the last writing of the newest file in it.
    """

    path: str
    unit: int
    count: int
    modified_ns: int


def candidates(folder: str | os.PathLike[str]) -> tuple[Candidate, ...]:
    """The checkpoints below a folder, the newest first. Raises ``Unreadable``.

    By the number that their names count where all have one of the same kind, else by the time of writing: names
    survive copying, times may not. A link and its target come once. Cost: one listing for each folder.
    """
    name = os.fspath(folder)
    if "://" in name:
        raise Unreadable(name, "run directories are local; name the checkpoint itself")
    if not Path(name).is_dir():
        raise Unreadable(name, "not a directory" if Path(name).exists() else "no such directory")
    found = [_candidate(path, name) for path in _once(find_targets(name))]
    return tuple(sorted(found, key=_order(found), reverse=True))


def _once(paths: Iterable[str]) -> list[str]:
    """Each file once: a name that is no link goes before one that is."""
    real: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: Path(path).is_symlink()):
        real.setdefault(os.path.realpath(path), path)
    return list(real.values())


def _candidate(path: str, root: str) -> Candidate:
    inside = os.path.relpath(path, root)
    unit, count = counted(Path(path).name if inside == "." else inside)
    return Candidate(path, unit, count, _modified(Path(path)))


def counted(name: str) -> tuple[int, int]:
    """What a name counts, as the kind of count and the number; ``(-1, -1)`` where it has no number.

    Of several kinds the finest counts (``epoch=3-step=400``: 400), of several places the innermost.
    """
    parts = Path(name.lower()).parts
    for text in reversed(parts):
        for unit, pattern in enumerate(_PATTERNS):
            if numbers := pattern.findall(text):
                return unit, int(numbers[-1])
    numbers = _PLAIN.findall(parts[-1]) if parts else []
    return (len(_PATTERNS), int(numbers[-1])) if numbers else (-1, -1)


def _modified(path: Path) -> int:
    files = (
        [Path(here) / name for here, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    )
    times = []
    for file in files:
        try:
            times.append(file.stat().st_mtime_ns)
        except OSError:
            continue
    return max(times, default=0)


def _order(found: list[Candidate]) -> Callable[[Candidate], tuple[int, int, str]]:
    units = {c.unit for c in found}
    if len(units) == 1 and -1 not in units:
        return lambda c: (c.count, c.modified_ns, c.path)
    return lambda c: (c.modified_ns, c.count, c.path)
