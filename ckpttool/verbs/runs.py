"""The checkpoints of a run directory in the order in which they were written, told from names, counters and times."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from ckpttool.errors import Unreadable
from ckpttool.formats.targets import find_targets
from ckpttool.verbs.run_counters import counts_inside
from ckpttool.verbs.run_names import Named, counted, lacking, named

__all__ = ["Candidate", "candidates", "counted"]

FEW = 16
"""As many checkpoints without a number are opened for their counters; with more of them the times decide."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint of a run. ``count`` is what its name counts and ``unit`` which kind of count that is, -1 for none.

    ``path`` is a file, or the folder of a checkpoint of several. ``targets`` are what to verify: the one path, or each
    file. ``lacks`` are parts that its siblings have. ``series`` is what it has in common with those that are numbered
    like it. ``modified_ns`` is the time of the last writing of the newest file in it, 0 where names alone decide.
    """

    path: str
    unit: int
    count: int
    modified_ns: int
    targets: tuple[str, ...] = ()
    series: tuple[str, str] = ("", "")
    lacks: tuple[str, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()


def candidates(folder: str | os.PathLike[str]) -> tuple[Candidate, ...]:
    """The checkpoints below a folder, the newest first. Raises ``Unreadable``.

    By what their names count where all count the same things; names survive copying, times may not. Where some count
    nothing (``last.ckpt``), by the counters inside these, if the others' names agree with those inside them; else by
    the time of writing. Files of one numbered folder, and those of several ranks, are one checkpoint. A link and
    its target come once. Cost: one listing for each folder.
    """
    name = os.fspath(folder)
    if "://" in name:
        raise Unreadable(name, "run directories are local; name the checkpoint itself")
    if not Path(name).is_dir():
        raise Unreadable(name, "not a directory" if Path(name).exists() else "no such directory")
    found = _grouped(_once(find_targets(name)), name)
    return _ordered(_compared(found))


def _once(paths: Sequence[str]) -> list[str]:
    """Each file once: a name that is no link goes before one that is."""
    links = {path for path in paths if os.path.islink(path)}  # noqa: PTH114 - thousands of them
    folders = {folder: os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}  # noqa: PTH120
    real: dict[str, str] = {}
    for path in sorted(paths, key=links.__contains__):
        folder, name = os.path.split(path)
        real.setdefault(os.path.realpath(path) if path in links else f"{folders[folder]}{os.sep}{name}", path)
    return list(real.values())


# --- which files are one checkpoint ----------------------------------------------------------------------


def _grouped(paths: Sequence[str], root: str) -> list[tuple[Candidate, frozenset[str]]]:
    """Candidates with the names of their parts."""
    groups: dict[tuple[str, tuple[tuple[int, int], ...]], list[tuple[str, Named]]] = {}
    for path in paths:
        inside = os.path.relpath(path, root).replace(os.sep, "/")
        known = named(Path(os.path.abspath(root)).name if inside == "." else inside)  # noqa: PTH100
        key = inside if inside == "." else known.place
        groups.setdefault((key, known.counts), []).append((path, known))
    return [_candidate(parts, root) for parts in groups.values()]


def _folders_of(paths: Iterable[str]) -> frozenset[str]:
    """Every folder that is a checkpoint, or on the way to one."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = os.path.dirname(path)  # noqa: PTH120 - thousands of them
    return frozenset(found)


def _candidate(parts: Sequence[tuple[str, Named]], root: str) -> tuple[Candidate, frozenset[str]]:
    targets = tuple(path for path, _ in parts)
    known = parts[0][1]
    several = len(targets) > 1 and not known.ranked
    path = str(PurePath(root, known.place)) if several else targets[0]
    unit, count = known.counts[0] if known.counts else (-1, -1)
    members = frozenset(named.member for _, named in parts)
    return Candidate(path, unit, count, 0, targets, known.series, (), known.counts), members


def _compared(found: Sequence[tuple[Candidate, frozenset[str]]]) -> list[Candidate]:
    """With what each lacks that most of its siblings have."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    sizes = Counter(candidate.series for candidate, _ in found)
    for candidate, members in found:
        counts.setdefault(candidate.series, Counter()).update(members)
    return [replace(c, lacks=lacking(members, counts[c.series], sizes[c.series] - 1)) for c, members in found]


# --- which one is newer ----------------------------------------------------------------------------------


def _ordered(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    kinds = {tuple(unit for unit, _ in c.counts) for c in found}
    taken = _folders_of(target for c in found for target in c.targets)
    inner: Mapping[str, int] | None = {}
    if len(kinds) != 1 or () in kinds:
        found = [_timed(c, taken) for c in found]
        inner = _inner_counts(found)
    else:
        often = Counter(c.counts for c in found)
        found = [c if often[c.counts] == 1 else _timed(c, taken) for c in found]
    if inner is None:
        return tuple(sorted(found, key=lambda c: (c.modified_ns, c.count, c.path), reverse=True))
    return tuple(sorted(found, key=partial(_place, inner), reverse=True))


def _place(inner: Mapping[str, int], candidate: Candidate) -> tuple[tuple[int, ...], int, str]:
    """The coarsest count first: steps may begin anew with each epoch; where they do not, the order is the same."""
    counts = (n for _, n in reversed(candidate.counts))
    numbers = (inner[candidate.path],) if inner else tuple(counts)
    return numbers, candidate.modified_ns, candidate.path


def _timed(candidate: Candidate, taken: frozenset[str]) -> Candidate:
    return replace(candidate, modified_ns=max(_modified(target, taken) for target in candidate.targets))


def _modified(path: str, taken: frozenset[str]) -> int:
    """The time of the last writing in a file or folder, checkpoints inside it left out."""
    if not os.path.isdir(path):  # noqa: PTH112 - thousands of them
        return _time(path)
    found = 0
    for here, folders, names in os.walk(path):
        folders[:] = [name for name in folders if f"{here}{os.sep}{name}" not in taken]
        found = max([found, *(_time(f"{here}{os.sep}{name}") for name in names)])
    return found


def _time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - thousands of them
    except OSError:
        return 0


def _inner_counts(found: Sequence[Candidate]) -> dict[str, int] | None:
    """By path the counter that the numbered ones are named by, read from those that are not; None if there is none."""
    plain = [c for c in found if not c.counts]
    units = {c.unit for c in found if c.counts}
    if len(units) != 1 or len(plain) > FEW:
        return None
    sample = max((c for c in found if c.counts), key=lambda c: c.count)
    outside = {c.path: c.count for c in found if c.counts}
    inside = counts_inside(sample.targets)
    for key in sorted(inside, key=lambda key: abs(inside[key] - sample.count)):
        ahead = sample.count - inside[key]  # epochs are counted from 0 outside and from 1 inside, or the reverse
        if abs(ahead) > 1:
            break
        read = {c.path: counts_inside(c.targets).get(key) for c in plain}
        known = {path: value + ahead for path, value in read.items() if value is not None}
        if len(known) == len(plain):
            return {**outside, **known}
    return None
