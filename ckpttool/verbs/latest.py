"""``latest``: the newest checkpoint of a run that is complete, intact, and enough for what is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path, PurePath

from ckpttool.errors import ExitCode, printable
from ckpttool.model import Json
from ckpttool.report import Report, Table, Text
from ckpttool.units import plural
from ckpttool.verbs.runs import Candidate, candidates
from ckpttool.verbs.trackers import Tracker, complaint, trackers
from ckpttool.verbs.verify import verify

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Wishes:
    require: str | None
    trust: tuple[str, ...]
    headers_only: bool
    executor: Executor | None
    progress: Progress | None


def latest(
    folder: str | os.PathLike[str],
    *,
    require: str | None = None,
    trust: Collection[str] = (),
    headers_only: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Report:
    """Find the newest checkpoint below a folder that is complete and verified; exit code 1 if there is none.

    ``require`` is ``weights``, ``resumable`` or ``exact``, as in ``verify``. Candidates are looked at newest first:
    headers, and only where these will do, every byte (unless ``headers_only``). What DeepSpeed or Megatron began after
    the one that their own tracker names was not finished and is passed over. The data have ``path`` (None if there is
    none), ``skipped``, newer ones with the reason, and ``trackers`` with what is wrong with them. Raises
    ``Unreadable`` for the folder itself.
    """
    wishes = _Wishes(require, tuple(trust), headers_only, executor, progress)
    skipped: list[tuple[Candidate, str]] = []
    found = candidates(folder)
    known = trackers_of(folder, found)
    committed = [(t, there) for t in known if t.commits and (there := tracked(t, found)) is not None]
    for candidate in found:
        why = _unfinished(candidate, committed) or _falls_short(candidate, wishes)
        if not why:
            return _report(os.fspath(folder), candidate, skipped, len(found), known)
        skipped.append((candidate, why))
    return _report(os.fspath(folder), None, skipped, len(found), known)


def trackers_of(folder: str | os.PathLike[str], found: Sequence[Candidate]) -> tuple[Tracker, ...]:
    """The trackers in a run's folder and beside its checkpoints."""
    places = [Path(folder), *(Path(c.path).parent for c in found if c.path != os.fspath(folder))]
    return trackers(dict.fromkeys(places))


def tracked(tracker: Tracker, found: Sequence[Candidate]) -> Candidate | None:
    """The checkpoint that a tracker names."""
    if not tracker.there:
        return None
    real = os.path.realpath(tracker.target)
    for candidate in found:
        if any(_is_or_holds(real, os.path.realpath(path)) for path in (candidate.path, *candidate.targets)):
            return candidate
    return None


def _is_or_holds(real: str, path: str) -> bool:
    """``iter_0001000`` for the one file in it as well."""
    return path == real or PurePath(real) in PurePath(path).parents


def _unfinished(candidate: Candidate, committed: Sequence[tuple[Tracker, Candidate]]) -> str:
    """Why a checkpoint is not committed; empty if it is, or if nothing says."""
    for tracker, there in committed:
        if there.series == candidate.series and 0 <= there.count < candidate.count:
            return f"not finished: {printable(Path(tracker.path).name)} names '{printable(tracker.says)}'"
    return ""


def _falls_short(candidate: Candidate, wishes: _Wishes) -> str:
    """Why a candidate will not do; empty if it will."""
    if candidate.lacks:
        return f"partial: {', '.join(candidate.lacks)} is missing, which its siblings have"
    paths = candidate.targets or (candidate.path,)
    # Of several files one has what is required: then the others only need to be whole.
    require = wishes.require if len(paths) == 1 else None
    why = shortfall(verify(paths, require=require, trust=wishes.trust, headers_only=True))
    if not why and len(paths) > 1 and wishes.require:
        each = [
            shortfall(verify([path], require=wishes.require, trust=wishes.trust, headers_only=True)) for path in paths
        ]
        why = "" if "" in each else each[0]
    if why or wishes.headers_only:
        return why
    done = verify(paths, require=require, trust=wishes.trust, executor=wishes.executor, progress=wishes.progress)
    return shortfall(done)


def shortfall(report: Report) -> str:
    """Why verified targets are not complete, intact and as ready as was required; empty if they are."""
    for subject in report.subjects:
        if subject.error:
            return subject.error
        if subject.verdict in ("damaged", "unsafe", "not-a-checkpoint") or subject.failed:
            first = next((f for f in subject.findings if f.severity == "error"), None)
            return subject.verdict if first is None else f"{first.name}: {first.message}"
        busy = next((f for f in subject.findings if f.name == "in-progress"), None)
        if busy is not None:
            return f"in progress: {busy.message}"
    return "" if report.subjects else "there is no checkpoint any more"


def _report(
    folder: str,
    chosen: Candidate | None,
    skipped: Sequence[tuple[Candidate, str]],
    count: int,
    known: Sequence[Tracker],
) -> Report:
    rows = tuple((printable(c.path), printable(why)) for c, why in skipped)
    table = (Table(("newer, and skipped", "why"), rows),) if rows else ()
    path = None if chosen is None else chosen.path
    wrong = {tracker.path: _wrong(tracker, skipped) for tracker in known}
    notes = tuple(Text(text) for text in wrong.values() if text)
    data: dict[str, Json] = {
        "folder": folder,
        "path": path,
        "candidates": count,
        "skipped": [{"path": c.path, "why": why} for c, why in skipped],
        "trackers": [
            {"path": t.path, "says": t.says, "target": t.target or None, "wrong": wrong[t.path] or None} for t in known
        ],
    }
    if chosen is None:
        text = f"{printable(folder)} – none of {plural(count, 'checkpoint')} is complete and verified"
        return Report("latest", data, (Text(text, "bad"), *table, *notes), ExitCode.FINDINGS)
    return Report("latest", data, (Text(printable(chosen.path), "plain"), *table, *notes))


def _wrong(tracker: Tracker, skipped: Sequence[tuple[Candidate, str]]) -> str:
    """What is wrong with a tracker's checkpoint, as far as has been looked at."""
    if not tracker.there:
        return complaint(tracker)
    named = tracked(tracker, [candidate for candidate, _ in skipped])
    why = next((why for candidate, why in skipped if candidate is named), "")
    return complaint(tracker, why) if why else ""
