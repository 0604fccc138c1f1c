"""``prune``: delete a run's old checkpoints, after those that stay are verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ckpttool.errors import CkpttoolError, ExitCode, UsageError, printable
from ckpttool.formats import describe
from ckpttool.formats.folders import INDEX
from ckpttool.model import Json
from ckpttool.report import Report, Table, Text
from ckpttool.retention import METRICS, Item, Kept, Metrics, reasons_to_keep
from ckpttool.tree import number, walk
from ckpttool.units import plural, size
from ckpttool.verbs.deleting import delete_checkpoint, finish_deletions
from ckpttool.verbs.latest import shortfall, tracked, trackers_of
from ckpttool.verbs.runs import Candidate, candidates
from ckpttool.verbs.verify import verify

Progress = Callable[[int, int], None]

UNPROVEN = frozenset({"not numbered", "holds others"})
"""Reasons to stay that do not ask for a sound checkpoint: nothing rests on these."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A checkpoint, why it stays (nothing: it goes), and what is wrong with one that should stay."""

    candidate: Candidate
    reasons: tuple[str, ...]
    nbytes: int
    wrong: str = ""

    @property
    def relied_on(self) -> bool:
        return bool(set(self.reasons) - UNPROVEN)


def prune(
    folder: str | os.PathLike[str],
    *,
    keep_last: int | None = None,
    keep_every: int | None = None,
    keep_best: int = 0,
    metric: str | None = None,
    higher: bool = False,
    delete: bool = False,
    require: str | None = None,
    trust: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Choose which checkpoints of a run go, verify those that stay, and, with ``delete``, delete the others.

    ``keep_last`` of the newest, those whose step is a multiple of ``keep_every``, and the ``keep_best`` by
    ``metric``, the key of a number in each checkpoint (lower is better unless ``higher``), without one by the metrics
    that ``CheckpointStore`` noted; of each series of names on its own. What a link or a framework's tracker names
    stays, and the newest that verifies; so does what is not numbered where others are, and a folder that holds other
    checkpoints. Without ``delete`` nothing is touched. One survivor that is not complete and intact, and nothing is
    deleted: exit code 1. Raises ``UsageError`` where nothing says what to keep, ``WriteFailed`` where something cannot
    be deleted.
    """
    if not (keep_last or keep_every or keep_best):
        raise UsageError("say what to keep: --keep-last N, --keep-every N or --keep-best [N]")
    found = candidates(folder)
    noted = _noted(Path(folder), found, metric, higher) if keep_best else _Noted({}, True)
    kept = Kept(keep_last, keep_every, keep_best, noted.lower)
    stay = _protected(folder, found, _chosen(found, kept, noted.by_path))
    judge = _Judge(require, tuple(trust), progress)
    choices = judge.all([_Choice(c, tuple(stay.get(c.path, ())), _nbytes(c)) for c in found])
    wrong = [c for c in choices if c.wrong]
    gone = [] if wrong or not delete else [c.candidate for c in choices if not c.reasons]
    if delete and not wrong:
        finish_deletions(Path(folder))
        for candidate in reversed(gone):
            others = [c.candidate for c in choices if c.candidate is not candidate]
            delete_checkpoint(candidate, others, Path(folder))
    return _report(os.fspath(folder), choices, [c.path for c in gone], delete, bool(wrong))


# --- what stays ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Noted:
    """The metric of each checkpoint that has one, by path, and whether a lower one is better."""

    by_path: Mapping[str, float | None]
    lower: bool


def _noted(folder: Path, found: Sequence[Candidate], metric: str | None, higher: bool) -> _Noted:
    if metric:
        noted = _Noted({c.path: _metric(c, metric) for c in found}, not higher)
        where = f"under '{printable(metric)}'; `ckpttool inspect` shows keys"
    else:
        metrics = _metrics_of(folder)
        noted = _Noted({c.path: metrics.by_step.get(c.count) for c in found if c.counts}, metrics.lower and not higher)
        where = f"in {METRICS}; --metric KEY is the key of a number in each checkpoint"
    if all(value is None for value in noted.by_path.values()):
        raise UsageError(f"no checkpoint has a metric {where}")
    return noted


def _metrics_of(folder: Path) -> Metrics:
    place = folder / METRICS
    try:
        return Metrics.parse(place.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            f"--keep-best needs --metric KEY, the key of a number in each checkpoint: there is no {METRICS}"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{printable(str(place))} – cannot be read: {error}") from None


def _chosen(found: Sequence[Candidate], kept: Kept, metrics: Mapping[str, float | None]) -> dict[str, list[str]]:
    """By path why checkpoints stay by what was asked for, each series of names on its own.

    Where no name counts anything, the order does, of all of them.
    """
    numbered = any(c.counts for c in found)
    if kept.every and not numbered:
        raise UsageError("--keep-every needs a step in the names, and these count nothing")
    series: dict[object, list[Item]] = {}
    stay: dict[str, list[str]] = {}
    for place, c in enumerate(found):
        if numbered and not c.counts:
            stay[c.path] = ["not numbered"]
            continue
        step = c.count if numbered else len(found) - place
        series.setdefault((c.series, c.unit) if numbered else "", []).append(Item(c.path, step, metrics.get(c.path)))
    for items in series.values():
        for path, why in reasons_to_keep(items, kept).items():
            stay.setdefault(path, []).extend(why)
    return stay


def _protected(
    folder: str | os.PathLike[str], found: Sequence[Candidate], stay: dict[str, list[str]]
) -> Mapping[str, Sequence[str]]:
    """With what stays whatever was asked for."""
    for tracker in trackers_of(folder, found):
        named = tracked(tracker, found)
        if named is not None:
            stay.setdefault(named.path, []).append(f"'{PurePath(tracker.path).name}' names it")
    parents = {parent for c in found for path in (c.path, *c.targets) for parent in PurePath(path).parents}
    for c in found:
        own = PurePath(c.path)
        if own in parents and any(
            own in PurePath(path).parents for other in found if other is not c for path in other.targets
        ):
            stay.setdefault(c.path, []).append("holds others")
    return stay


def _metric(candidate: Candidate, key: str) -> float | None:
    for target in candidate.targets:
        try:
            checkpoint = describe(target)
        except CkpttoolError:
            continue
        found = next((e.index for e in walk(checkpoint) if e.key == key), None)
        if found is not None:
            return number(checkpoint, found)
    return None


def _nbytes(candidate: Candidate) -> int:
    place = Path(candidate.path)
    if place.is_dir():
        files = [f for f in place.rglob("*") if f.is_file() and not f.is_symlink()]
    else:
        files = [Path(f) for target in candidate.targets for f in (target, *_parts(target))]
    return sum(f.stat().st_size for f in dict.fromkeys(files) if f.exists())


def _parts(target: str) -> tuple[str, ...]:
    try:
        return describe(target).files if target.endswith(INDEX) else ()
    except CkpttoolError:
        return ()


@dataclass(frozen=True, slots=True)
class _Judge:
    """Verifies what others rely on, and finds the newest that is sound."""

    require: str | None
    trust: tuple[str, ...]
    progress: Progress | None

    def all(self, newest_first: Sequence[_Choice]) -> list[_Choice]:
        found: list[_Choice] = []
        sound = False
        for choice in newest_first:
            # Until one is sound, those that would go are looked at as well: one of them may be the newest.
            why = self._wrong(choice.candidate) if choice.relied_on or not sound else ""
            if not sound and not why:
                sound = True
                reasons = choice.reasons if choice.relied_on else (*choice.reasons, "newest")
                found.append(replace(choice, reasons=reasons))
            else:
                found.append(replace(choice, wrong=why if choice.relied_on else ""))
        return found

    def _wrong(self, candidate: Candidate) -> str:
        if candidate.lacks:
            return f"partial: {', '.join(candidate.lacks)} is missing"
        require = self.require if len(candidate.targets) == 1 else None
        return shortfall(verify(candidate.targets, require=require, trust=self.trust, progress=self.progress))


# --- what is said ----------------------------------------------------------------------------------------


def _report(folder: str, choices: list[_Choice], gone: list[str], delete: bool, failed: bool) -> Report:
    rows = tuple(
        (printable(os.path.relpath(c.candidate.path, folder)), size(c.nbytes), _fate(c, delete, failed))
        for c in choices
    )
    freed = sum(c.nbytes for c in choices if not c.reasons)
    data: dict[str, Json] = {
        "folder": folder,
        "deleted": [*gone],
        "checkpoints": [
            {"path": c.candidate.path, "bytes": c.nbytes, "keep": [*c.reasons], "wrong": c.wrong or None}
            for c in choices
        ],
        "bytes_freed": freed if gone else 0,
    }
    table = Table(("checkpoint", "size", "what becomes of it"), rows, "lrl")
    code = ExitCode.FINDINGS if failed else ExitCode.OK
    return Report("prune", data, (Text(_headline(choices, freed, delete, failed), "title"), table), code)


def _fate(choice: _Choice, delete: bool, failed: bool) -> str:
    why = printable(", ".join(choice.reasons))
    if choice.wrong:
        return f"should stay ({why}), and is not sound: {printable(choice.wrong)}"
    if choice.reasons:
        return f"stays ({why}), verified" if choice.relied_on else f"stays ({why})"
    return "deleted" if delete and not failed else "would be deleted"


def _headline(choices: list[_Choice], freed: int, delete: bool, failed: bool) -> str:
    going = plural(sum(1 for c in choices if not c.reasons), "checkpoint")
    if failed:
        return "nothing was deleted: of those that should stay, not all are sound"
    if delete:
        return f"{going} deleted, {size(freed)} freed"
    return f"{going} would be deleted, {size(freed)}; --delete does it"
