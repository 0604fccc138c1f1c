"""``prune``: delete a run's old checkpoints, after those that stay are verified."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ckpttool.errors import ExitCode, UsageError, WriteFailed, printable
from ckpttool.formats import describe
from ckpttool.manifest import sidecar
from ckpttool.model import Json
from ckpttool.report import Report, Table, Text
from ckpttool.retention import Item, Kept, reasons_to_keep
from ckpttool.tree import number, walk
from ckpttool.units import plural, size
from ckpttool.verbs.latest import shortfall
from ckpttool.verbs.runs import Candidate, candidates
from ckpttool.verbs.verify import verify
from ckpttool.writing.durable import flush_folder

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Choice:
    """A checkpoint, why it stays (nothing: it goes), and what is wrong with one that should stay."""

    candidate: Candidate
    reasons: tuple[str, ...]
    nbytes: int
    wrong: str = ""


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
    ``metric``, the key of a number in each checkpoint (lower is better unless ``higher``). Without ``delete``
    nothing is touched. One survivor that is not complete and intact, and nothing is deleted: exit code 1.
    Raises ``UsageError`` where nothing says what to keep.
    """
    if not (keep_last or keep_every or keep_best):
        raise UsageError("say what to keep: --keep-last N, --keep-every N or --keep-best [N]")
    if keep_best and not metric:
        raise UsageError("--keep-best needs --metric KEY, the key of a number in each checkpoint")
    found = candidates(folder)
    kept = Kept(keep_last, keep_every, keep_best, not higher)
    newest_first = list(_chosen(found, kept, metric))
    survivors = [_verified(c, require, trust, progress) if c.reasons else c for c in newest_first]
    wrong = [c for c in survivors if c.wrong]
    gone = [] if wrong or not delete else [c.candidate.path for c in survivors if not c.reasons]
    for path in reversed(gone):
        _delete(path)
    return _report(os.fspath(folder), survivors, gone, delete, bool(wrong))


def _chosen(found: tuple[Candidate, ...], kept: Kept, metric: str | None) -> list[_Choice]:
    """Every checkpoint with the reasons why it stays. Where names count nothing, the order does."""
    counts = [c.count for c in found]
    ordinal = len(set(counts)) != len(counts) or -1 in counts
    if ordinal and kept.every:
        raise UsageError(
            "--keep-every needs a step in every name; these count nothing, or two count the same"
        )
    items = [
        Item(c.path, len(found) - place if ordinal else c.count, _metric(c.path, metric))
        for place, c in enumerate(found)
    ]
    if kept.best and all(item.metric is None for item in items):
        raise UsageError(
            f"no checkpoint has a number under '{printable(metric or '')}'; `ckpttool inspect` shows keys"
        )
    stay = reasons_to_keep(items, kept)
    return [_Choice(c, stay.get(c.path, ()), _nbytes(c.path)) for c in found]


def _metric(path: str, key: str | None) -> float | None:
    if key is None:
        return None
    checkpoint = describe(path)
    found = next((e.index for e in walk(checkpoint) if e.key == key), None)
    return number(checkpoint, found)


def _nbytes(path: str) -> int:
    place = Path(path)
    files = [f for f in place.rglob("*") if f.is_file()] if place.is_dir() else [place]
    return sum(f.stat().st_size for f in files if f.exists())


def _verified(
    choice: _Choice, require: str | None, trust: Collection[str], progress: Progress | None
) -> _Choice:
    path = choice.candidate.path
    why = shortfall(verify([path], require=require, trust=trust, progress=progress))
    return _Choice(choice.candidate, choice.reasons, choice.nbytes, why)


def _delete(path: str) -> None:
    """Delete a checkpoint with its manifest. A folder is renamed first, so that half of one never looks whole."""
    place = Path(path)
    try:
        if place.is_dir() and not place.is_symlink():
            going = place.with_name(f".{place.name}.deleting")
            place.rename(going)
            shutil.rmtree(going)
        else:
            _delete_files(place)
        sidecar(path).unlink(missing_ok=True)
        flush_folder(place.parent)
    except OSError as error:
        raise WriteFailed(path, f"cannot be deleted: {error.strerror}") from error


def _delete_files(place: Path) -> None:
    shards = [Path(f) for f in describe(place).files if Path(f) != place] if place.suffix == ".json" else []
    for file in (place, *shards):
        file.unlink(missing_ok=True)


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


def _inside(choice: _Choice, folder: str) -> str:
    return printable(os.path.relpath(choice.candidate.path, folder))


def _fate(choice: _Choice, delete: bool, failed: bool) -> str:
    if choice.wrong:
        return f"should stay ({', '.join(choice.reasons)}), and is not sound: {printable(choice.wrong)}"
    if choice.reasons:
        return f"stays ({', '.join(choice.reasons)}), verified"
    return "deleted" if delete and not failed else "would be deleted"


def _headline(choices: list[_Choice], freed: int, delete: bool, failed: bool) -> str:
    going = plural(sum(1 for c in choices if not c.reasons), "checkpoint")
    if failed:
        return "nothing was deleted: of those that should stay, not all are sound"
    if delete:
        return f"{going} deleted, {size(freed)} freed"
    return f"{going} would be deleted, {size(freed)}; --delete does it"
