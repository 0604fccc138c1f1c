"""What a power cut takes: contents that were never flushed, and renames whose folder was not. Standard library only.

A process that is killed leaves everything with the operating system; a machine that loses power leaves what ``fsync``
has put on the disk. Here the recorder notes what a save does to files, and the runner then takes back what no flush
made last, in the way that file systems do: an unflushed file is there and empty, an unflushed rename never was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckpttool.determinism.events import for_writing
from ckpttool.determinism.orders import Orders

Event = Sequence[str]
"""``write PATH``, ``sync PATH``, ``rename FROM TO KEPT`` (what was there before, or nothing), ``remove PATH``."""


class DiskLog:
    """What this process does to files from the beginning of its last save on; of renames what they replace is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[list[str]] = []
        self.kept = 0
        self.is_busy = False

    def install(self) -> None:
        """Watch, as long as the process lives."""
        sys.addaudithook(self.on_event)
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._flushing(getattr(os, name)))
        everything = os.sync

        def sync() -> None:
            everything()
            self.events += [["sync", path] for path in self._written()]

        os.sync = sync

    def begins(self, path: str, *, is_first: bool) -> None:
        """A save begins; with the first since a step what was before it is on the disk, or will be by itself."""
        if is_first:
            self.events = []
        if path:
            self.writes(path)

    def writes(self, path: str) -> None:
        """A file is written, by Python or by what nobody hears of."""
        place = os.path.abspath(path)  # noqa: PTH100 - no object is made within an audit
        if not place.startswith(("/dev/", "/proc/", str(self.folder))):
            self.events.append(["write", place])

    def on_event(self, event: str, args: Any) -> None:
        """What Python is about to do."""
        if self.is_busy or not args or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        self.is_busy = True
        try:
            self._note(event, args)
        finally:
            self.is_busy = False

    def _note(self, event: str, args: Any) -> None:
        path = os.path.abspath(os.fsdecode(args[0]))  # noqa: PTH100
        if event == "open" and for_writing(args):
            self.writes(path)
        elif event == "os.rename":
            target = os.path.abspath(os.fsdecode(args[1]))  # noqa: PTH100
            self.events.append(["rename", path, target, self._keep(target)])
        elif event in ("os.remove", "shutil.rmtree"):
            self.events.append(["remove", path])

    def _keep(self, path: str) -> str:
        """Another name for a file that is about to be replaced."""
        if not os.path.isfile(path):  # noqa: PTH113
            return ""
        self.kept += 1
        kept = self.folder / f"replaced-{os.getpid()}-{self.kept}"
        try:
            kept.hardlink_to(path)
        except OSError:
            shutil.copy2(path, kept)
        return str(kept)

    def _flushing(self, flush: Callable[[Any], None]) -> Callable[[Any], None]:
        def flushed(file: Any) -> None:
            flush(file)
            self.events += [["sync", path] for path in self._written() if _is_same(path, file)]

        return flushed

    def _written(self) -> list[str]:
        """Every path that a flush could be of: files, and their folders."""
        places = [event[2] if event[0] == "rename" else event[1] for event in self.events]
        return list(dict.fromkeys([*places, *(str(Path(place).parent) for place in places)]))


def size_of(path: str) -> int | None:
    """A file's bytes; None where there is none."""
    try:
        return os.stat(path).st_size if path else None  # noqa: PTH116 - no object is made while a script saves
    except OSError:
        return None


def _is_same(path: str, file: Any) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(file if isinstance(file, int) else file.fileno()))  # noqa: PTH116
    return False


def watched_disk(orders: Orders) -> DiskLog | None:
    """The log of this process, at work; None where nobody wants one."""
    if not orders.disk:
        return None
    found = DiskLog(orders.folder)
    found.install()
    return found


@dataclass(frozen=True, slots=True)
class Loss:
    """What would not be there after a power cut: files without contents, and renames with what they had replaced."""

    files: tuple[str, ...] = ()
    renames: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.renames)

    def __str__(self) -> str:
        names = [Path(path).name for path in self.files]
        if names:
            return f"{' and '.join(names[:3])} {'was' if len(names) == 1 else 'were'} never flushed to the disk"
        names = list(dict.fromkeys(Path(target).name for _, target, _ in self.renames))
        return f"the folder of {' and '.join(names[:3])} was never flushed to the disk" if names else ""

    def there(self) -> Loss:
        """The same without folders, and without files that are empty or gone already."""
        return Loss(tuple(path for path in self.files if _has_content(path)), self.renames)

    def take(self) -> None:
        """Make it so."""
        for path in self.files:
            with contextlib.suppress(OSError):
                os.truncate(path, 0)
        for source, target, kept in reversed(self.renames):
            with contextlib.suppress(OSError):
                Path(target).replace(source)
                if kept:
                    Path(kept).replace(target)


def loss_of(events: Iterable[Event]) -> Loss:
    """What of these events no flush made last. Pure.

    A rename is taken back where its folder was not flushed afterwards; where the file itself was not, it is the file
    that is lost, which is worse.
    """
    flushed: dict[str, bool] = {}
    renames: list[tuple[str, str, str]] = []
    for what, path, *more in events:
        if what == "write":
            flushed[path] = False
        elif what == "sync":
            flushed |= {path: True} if path in flushed else {}
            renames = [one for one in renames if str(Path(one[1]).parent) != path]
        elif what == "remove":
            flushed = {place: state for place, state in flushed.items() if not _is_within(place, path)}
        elif what == "rename":
            target, kept = more
            flushed = {_moved(place, path, target): state for place, state in flushed.items() if place != target}
            renames.append((path, target, kept))
    files = tuple(place for place, state in flushed.items() if not state)
    whole = [one for one in renames if not any(_is_within(place, one[1]) for place in files)]
    return Loss(files, tuple(whole))


def _has_content(path: str) -> bool:
    try:
        return Path(path).is_file() and Path(path).stat().st_size > 0
    except OSError:
        return False


def _is_within(place: str, path: str) -> bool:
    return place == path or place.startswith(f"{path}{os.sep}")


def _moved(place: str, source: str, target: str) -> str:
    return target + place[len(source) :] if _is_within(place, source) else place
