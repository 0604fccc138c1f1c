"""``verify``: is every byte intact, is it safe to load, can training resume from it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

from ckpttool.checks import rules
from ckpttool.errors import CkpttoolError, Unreadable, printable
from ckpttool.formats import describe
from ckpttool.layout import Layout
from ckpttool.limits import DEFAULT, Limits
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Damage, Finding, Severity
from ckpttool.profiles import lay_out
from ckpttool.report import Report
from ckpttool.rules import Context
from ckpttool.verbs.findings import RANK, finding, judge
from ckpttool.verbs.verdict import Verdict, cover, falls_short, reach
from ckpttool.verbs.verify_report import report
from ckpttool.verbs.verify_target import Target, Wishes

if TYPE_CHECKING:
    from ckpttool.manifest import Sealed

Progress = Callable[[int, int], None]

ATTEMPTS = 5
"""How often a file that is replaced meanwhile is looked at."""

_TEMPORARY = re.compile(r"(\.tmp\w*|\.part|\.partial|\.incomplete|\.crdownload|\.download|~)$|(^|/)\.tmp")


def verify(
    paths: Sequence[str | os.PathLike[str]],
    *,
    require: str | None = None,
    fail_on: Severity | Literal["never"] = "error",
    headers_only: bool = False,
    trust: Collection[str] = (),
    ignore: Collection[str] = (),
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Verify files, shards and run directories; nothing in them is imported or run.

    ``require`` is ``weights``, ``resumable`` or ``exact``; ``fail_on`` the severity from which findings fail
    (``never`` for none); ``trust`` names globals as ``module.name``; ``ignore`` holds rule codes or names. ``jobs``
    threads measure, or any ``executor``. Reads every byte once (headers only with ``headers_only``). A path that
    cannot be read is a target with an ``error``, and the exit code says so.
    """
    wishes = Wishes(require, fail_on, headers_only, tuple(trust), tuple(ignore), limits)
    targets: list[Target] = []
    with _Threads(jobs, executor) as chosen:
        for path, error in _expand([os.fspath(p) for p in paths]):
            targets.append(Target(path, error=error) if error else _verify_one(path, wishes, chosen, progress))
    return report(targets, wishes)


class _Threads:
    """The executor to measure with: the caller's, ``jobs`` threads, or None for the default."""

    def __init__(self, jobs: int | None, executor: Executor | None) -> None:
        self.own = ThreadPoolExecutor(jobs) if jobs and executor is None else None
        self.chosen = executor or self.own

    def __enter__(self) -> Executor | None:
        return self.chosen

    def __exit__(self, *_: object) -> None:
        if self.own is not None:
            self.own.shutdown(cancel_futures=True)


def _expand(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The targets behind each path, and why there are none: a folder stands for the checkpoints in it."""
    from ckpttool.formats.targets import find_targets

    for path in paths:
        if "://" in path or not Path(path).is_dir():
            yield path, ""
            continue
        try:
            found = find_targets(path)
        except CkpttoolError as error:
            yield path, str(error)
            continue
        if not found:
            yield path, str(Unreadable(path, "a directory that holds no checkpoint"))
        yield from ((target, "") for target in found)


def _verify_one(path: str, wishes: Wishes, executor: Executor | None, progress: Progress | None) -> Target:
    """One target; a file that another one replaces meanwhile is looked at anew."""
    for _ in range(ATTEMPTS):
        before = _identity(path)
        target = _examine(path, wishes, executor, progress)
        if _identity(path) == before:
            break
    return target


def _identity(path: str) -> tuple[int, int] | None:
    """Which file has a name; None for what is none."""
    try:
        facts = Path(path).stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def _examine(path: str, wishes: Wishes, executor: Executor | None, progress: Progress | None) -> Target:
    try:
        checkpoint = describe(path, wishes.limits, audit=True)
        measures = None if wishes.headers_only or checkpoint.kind else _measure(checkpoint, path, executor, progress)
    except CkpttoolError as error:
        return Target(path, error=str(error))
    checkpoint = _note_progress(checkpoint, path)
    layout = lay_out(checkpoint)
    context = Context(checkpoint, layout, measures, {"trust": list(wishes.trust)})
    findings = judge(context, wishes.ignore)
    coverage = cover(checkpoint, measures)
    verdict = reach(checkpoint, layout, findings, coverage)
    if falls_short(verdict.readiness, wishes.require) and not checkpoint.kind:
        findings = _sorted((*findings, _unmet(path, layout, verdict, str(wishes.require))))
    return Target(path, checkpoint, layout, findings, verdict, coverage)


def _measure(checkpoint: Checkpoint, path: str, executor: Executor | None, progress: Progress | None) -> Measures:
    from ckpttool.checks.file_name_hash import wanted_digests
    from ckpttool.measure import measure

    # The judges are loaded while bytes are read, which leaves processors idle now and then.
    loading = Thread(target=rules)
    loading.start()
    measures = measure(checkpoint, executor=executor, progress=progress)
    loading.join()
    digests = {name: _sha256(name) for name in wanted_digests(checkpoint)}
    seal = _seal(checkpoint, path, executor)
    return replace(measures, digests=digests, seal=seal) if digests or seal else measures


def _sha256(path: str) -> str:
    from ckpttool.measure.seals import sha256

    return sha256(path)


def _seal(checkpoint: Checkpoint, path: str, executor: Executor | None) -> Sealed | None:
    """What the manifest beside a checkpoint or in it says of it; None where there is none."""
    from ckpttool.verbs.sealed import examine_seal, has_seal

    return examine_seal(checkpoint, path, executor) if has_seal(checkpoint, path) else None


def _note_progress(checkpoint: Checkpoint, path: str) -> Checkpoint:
    """Add what says that a writer is still at work: a temporary name, or a file that moved meanwhile."""
    if any(d.rule == "in-progress" for d in checkpoint.damage):
        return checkpoint
    hint = "wait until the writer is done and run this again"
    if _TEMPORARY.search(path):
        damage = Damage("in-progress", printable(path), "the name is that of a temporary file", hint=hint)
    elif (now := _size_now(path)) not in (None, checkpoint.nbytes):
        message = f"the file had {checkpoint.nbytes} bytes when it was opened and has {now} now"
        damage = Damage("in-progress", printable(path), message, hint=hint)
    else:
        return checkpoint
    return replace(checkpoint, damage=(*checkpoint.damage, damage))


def _size_now(path: str) -> int | None:
    """The size of a single local file at this moment; None for anything else."""
    local = "://" not in path and Path(path).is_file() and not path.endswith(".index.json")
    return Path(path).stat().st_size if local else None


def _unmet(path: str, layout: Layout, verdict: Verdict, require: str) -> Finding:
    lacks = ", ".join(layout.readiness.lacks) or "nothing that is known"
    message = f"{require} is required, and this is {verdict.readiness}; it lacks {lacks}"
    return finding(rules()["requirement-not-met"], Damage("requirement-not-met", printable(path), message))


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (RANK[f.severity], f.code)))
