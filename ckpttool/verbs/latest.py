"""``latest``: the newest checkpoint of a run that is complete, intact, and enough for what is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import Executor

from ckpttool.errors import ExitCode, printable
from ckpttool.model import Json
from ckpttool.report import Report, Table, Text
from ckpttool.units import plural
from ckpttool.verbs.runs import Candidate, candidates
from ckpttool.verbs.verify import verify

Progress = Callable[[int, int], None]


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
    headers, and only where these will do, every byte (unless ``headers_only``). The data have ``path`` (None if
    there is none) and ``skipped``, newer ones with the reason. Raises ``Unreadable`` for the folder itself.
    """
    skipped: list[tuple[str, str]] = []
    found = candidates(folder)
    for candidate in found:
        why = _falls_short(candidate, require, trust, headers_only, executor, progress)
        if not why:
            return _report(os.fspath(folder), candidate, skipped, len(found))
        skipped.append((candidate.path, why))
    return _report(os.fspath(folder), None, skipped, len(found))


def _falls_short(
    candidate: Candidate,
    require: str | None,
    trust: Collection[str],
    headers_only: bool,
    executor: Executor | None,
    progress: Progress | None,
) -> str:
    """Why a candidate will not do; empty if it will."""
    why = shortfall(verify([candidate.path], require=require, trust=trust, headers_only=True))
    if why or headers_only:
        return why
    return shortfall(
        verify([candidate.path], require=require, trust=trust, executor=executor, progress=progress)
    )


def shortfall(report: Report) -> str:
    """Why a verified target is not complete, intact and as ready as was required; empty if it is."""
    subject = report.subjects[0]
    if subject.error:
        return subject.error
    if subject.verdict in ("damaged", "unsafe", "not-a-checkpoint") or subject.failed:
        first = next((f for f in subject.findings if f.severity == "error"), None)
        return subject.verdict if first is None else f"{first.name}: {first.message}"
    busy = next((f for f in subject.findings if f.name == "in-progress"), None)
    return f"in progress: {busy.message}" if busy else ""


def _report(folder: str, chosen: Candidate | None, skipped: list[tuple[str, str]], count: int) -> Report:
    rows = tuple((printable(path), printable(why)) for path, why in skipped)
    table = (Table(("newer, and skipped", "why"), rows),) if rows else ()
    path = None if chosen is None else chosen.path
    data: dict[str, Json] = {
        "folder": folder,
        "path": path,
        "candidates": count,
        "skipped": [{"path": name, "why": why} for name, why in skipped],
    }
    if chosen is None:
        text = f"{printable(folder)} – none of {plural(count, 'checkpoint')} is complete and verified"
        return Report("latest", data, (Text(text, "bad"), *table), ExitCode.FINDINGS)
    return Report("latest", data, (Text(printable(chosen.path), "plain"), *table))
