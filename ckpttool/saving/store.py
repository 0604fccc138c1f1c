"""``ckpttool.CheckpointStore``: a folder of checkpoints that always holds a good one."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpttool.errors import Damaged, Unreadable, UsageError, WriteFailed, printable
from ckpttool.manifest import SIDECAR, sidecar
from ckpttool.retention import METRICS, Item, Kept, Metrics, reasons_to_keep
from ckpttool.saving.folders import clear, delete_folder, new_folder
from ckpttool.saving.load import NotACheckpoint, check, damage_of, load
from ckpttool.saving.lock import FolderLock
from ckpttool.saving.save import Saved, save
from ckpttool.writing.durable import flush_folder, replacing
from ckpttool.writing.temporary import sweep_folder

_NAME = re.compile(r"step-(\d{8,})(?:\.pth)?")
_OWN = re.compile(rf"step-\d{{8,}}(?:\.pth)?(?:{re.escape(SIDECAR)})?|{re.escape(METRICS)}")
"""The files of a store, whose temporary ones it clears away."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint that was loaded: its content, its step and path, and the newer ones that were not sound.

    A folder is verified and not loaded: its ``state`` is None, and ``path`` is for whoever wrote it.
    """

    state: Any
    step: int
    path: Path
    skipped: tuple[tuple[Path, str], ...] = ()


class CheckpointStore:
    """The checkpoints of one run in one folder, written by one process at a time.

    ``keep`` is how many of the last stay, ``every`` keeps those whose step is a multiple of it, ``best`` as many by
    ``metric`` (lower is better unless ``lower`` is off). None of the old ones goes before the new one is on the disk
    and verified. The folder is made if it is missing. Raises ``Locked`` where another process has it open for
    writing; ``readonly`` takes no lock and can only load.

    >>> with CheckpointStore("runs/x", keep=3) as store:  # doctest: +SKIP
    ...     found = store.load_latest()
    ...     store.save({"model": model.state_dict(), "step": 1000}, step=1000)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int | None = 3,
        every: int | None = None,
        best: int = 0,
        lower: bool = True,
        readonly: bool = False,
    ) -> None:
        if (keep is not None and keep < 1) or (every is not None and every < 1) or best < 0:
            raise UsageError(f"keep ({keep}) and every ({every}) are at least 1 or None, best ({best}) at least 0")
        self.folder = Path(folder)
        self.kept = Kept(keep, every, best, lower)
        self._damaged: set[Path] = set()  # found so by `load_latest`: they count for nothing
        self._lock: FolderLock | None = None
        self._one_save = threading.Lock()
        if not readonly:
            _make(self.folder)
            self._lock = FolderLock(self.folder)
            self._clear()

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # --- writing -----------------------------------------------------------------------------------------

    def save(self, state: object, *, step: int, metric: float | None = None) -> Saved:
        """Save, which reads back what was written, then let go of what need not stay.

        A step that is there already is replaced whole. What was just saved always stays, and so do checkpoints of later
        steps, which a run that went back has left. An old one that cannot be deleted is a warning. Raises
        ``WriteFailed``; then nothing is lost. Costs what ``ckpttool.save`` costs. Threads take turns.
        """
        with self._turn(step, metric, self.path_of(step)):
            return save(state, self.path_of(step))

    @contextmanager
    def save_folder(self, *, step: int, metric: float | None = None) -> Iterator[Path]:
        """The same for a checkpoint that is a folder which another writer fills, torch's distributed one say.

        Yields where to. After the block what is there is verified, sealed, flushed and gets its name,
        ``step-00001000``; a block that fails leaves nothing. Several processes may write into it until then.

        >>> with store.save_folder(step=1000) as folder:  # doctest: +SKIP
        ...     torch.distributed.checkpoint.save(state, checkpoint_id=folder)
        """
        target = self.path_of(step).with_suffix("")
        with self._turn(step, metric, target), new_folder(target) as folder:
            yield folder

    @contextmanager
    def _turn(self, step: int, metric: float | None, target: Path) -> Iterator[None]:
        """One save at a time; what need not stay goes after it."""
        if self._lock is None or not self._lock.mine:
            why = "closed, open for reading only, or was opened by the process that this one was forked from"
            raise UsageError(f"{printable(str(self.folder))} – this store is {why}")
        if step < 0:
            raise UsageError(f"a step is counted from 0, and this is {step}")
        with self._one_save:
            if metric is not None:
                self._note(step, metric)  # first: a metric without a checkpoint does no harm
            yield
            self._damaged.discard(target)
            self._let_go(step, target)

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step stands that ``save`` makes."""
        return self.folder / f"step-{step:08d}.pth"

    def _note(self, step: int, metric: float) -> None:
        try:
            known = Metrics({**self._read_metrics(), step: float(metric)}, self.kept.lower)
        except (OSError, ValueError, TypeError) as error:
            place = printable(str(self.folder / METRICS))
            text = f"{place} – cannot be read: {error}; the metric of step {step} is not noted, and nothing is deleted"
            warnings.warn(text, stacklevel=5)
            return
        with replacing(self.folder / METRICS) as file:
            file.write(known.encoded())

    def metrics(self) -> dict[int, float]:
        """The metric of each step that has one; empty where the file is missing or cannot be read."""
        try:
            return {**self._read_metrics()}
        except (OSError, ValueError):
            return {}

    def _read_metrics(self) -> Mapping[int, float]:
        try:
            return Metrics.parse((self.folder / METRICS).read_bytes()).by_step
        except FileNotFoundError:
            return {}

    def _let_go(self, saved: int, target: Path) -> None:
        try:
            metrics = self._read_metrics() if self.kept.best else {}
            steps = [(step, path) for step, path in self.steps() if step <= saved and path not in self._damaged]
            items = [Item(path.name, step, metrics.get(step)) for step, path in steps]
            stay = {*reasons_to_keep(items, self.kept), target.name}
            gone = [self.folder / item.name for item in items if item.name not in stay]
            for path in gone:
                if path.is_dir():
                    delete_folder(path)
                    continue
                # The manifest last: alone it does no harm, and without it nobody would say that it was sealed.
                path.unlink(missing_ok=True)
                sidecar(str(path)).unlink(missing_ok=True)
            if gone:
                flush_folder(self.folder)
        except (OSError, ValueError) as error:
            text = f"{printable(str(self.folder))} – step {saved} is saved, and old ones stay: {error}"
            warnings.warn(text, stacklevel=5)

    def _clear(self) -> None:
        """Remove what a killed writer left: temporary files, and manifests of files that never came."""
        sweep_folder(self.folder, _OWN)
        with contextlib.suppress(OSError):
            clear(self.folder, _OWN)
            for place in self.folder.glob(f"step-*.pth{SIDECAR}"):
                if _OWN.fullmatch(place.name) and not place.with_name(place.name.removesuffix(SIDECAR)).exists():
                    place.unlink()

    # --- reading -----------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[int, Path]]:
        """The checkpoints that are there, complete or not, by step."""
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - names are compared, not paths
        except FileNotFoundError:
            return []
        found = [(int(match[1]), self.folder / name) for name in names if (match := _NAME.fullmatch(name))]
        return sorted(found)

    def latest(self) -> Path | None:
        """The newest checkpoint whose every byte is verified; None if there is none."""
        return next((path for _, path in reversed(self.steps()) if not damage_of(path)), None)

    def load_latest(
        self, *, map_location: object = "cpu", trust: Collection[str] = (), mmap: bool = False
    ) -> Loaded | None:
        """Load the newest checkpoint that is sound; None if the folder holds none at all.

        Warns for each newer one that had to be skipped, naming what is wrong with it. Raises ``Damaged`` where there
        are checkpoints and none is sound, for a run that began anew would replace them; and ``Unsafe`` for a sound one
        that asks for more than data: an older one would too.
        """
        for _ in range(10):
            found = self._load_newest(map_location, trust, mmap)
            if not isinstance(found, Path):
                return found
        raise Unreadable(str(found), "its writer deletes checkpoints faster than they can be read")

    def _load_newest(self, map_location: object, trust: Collection[str], mmap: bool) -> Loaded | Path | None:
        """As above; the path of one that its writer deleted while this store, a reader, looked."""
        skipped: list[tuple[Path, str]] = []
        for step, path in reversed(self.steps()):
            try:
                if whole := path.is_dir():
                    check(path)
                state = None if whole else load(path, map_location=map_location, trust=trust, mmap=mmap)
            except (Damaged, NotACheckpoint, Unreadable) as error:
                if not path.exists():
                    return path
                skipped.append((path, str(error)))
                self._damaged.add(path)
                warnings.warn(f"skipped, an older checkpoint is taken: {error}", stacklevel=3)
                continue
            return Loaded(state, step, path, tuple(skipped))
        if skipped:
            raise Damaged(self.folder, f"none of its checkpoints is sound; the newest: {skipped[0][1]}")
        return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(folder, f"cannot be made: {error.strerror}") from error
