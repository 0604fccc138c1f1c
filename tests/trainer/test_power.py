"""Power cuts while training, by a model: what the disk may hold after one, and the run that goes on from that.

Contents that were flushed are whole; others are missing, zeros or torn. Names are as at their folder's last flush, with
any of the changes since then. (As in `tests/saving/test_power_loss.py`, here with folders in folders.)
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ckpttool import Damaged

torch = pytest.importorskip("torch", reason="torch is not installed")

from ckpttool.trainer.checkpoints import Saver  # noqa: E402 - it needs torch
from ckpttool.trainer.config import make_config  # noqa: E402
from ckpttool.trainer.train import Result, train  # noqa: E402

SLOW = pytest.mark.slow
pytestmark = [
    pytest.mark.usefixtures("environment_put_back"),
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads an open file by its number"),
    pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning"),  # where a folder is read
]

SETTINGS = {
    "task": "tabular", "steps": 14, "eval_every": 5, "save_every": 3, "log_every": 1, "progress": False, "keep": 2,
    "keep_best": 0, "patience": 0,
}  # fmt: skip

Names = dict[str, int]  # the inode behind each
Change = Callable[[Names], None]
Tree = dict[str, bytes | None]  # what is at each path: a file's content, None for a folder


@dataclass
class Disk:
    """What is on the disk for certain, what is not yet, and what a power cut may make of it."""

    root: Path
    dice: random.Random
    names: dict[int, Names] = field(default_factory=dict)  # of each folder, as flushed
    pending: dict[int, list[Change]] = field(default_factory=dict)
    flushed: dict[int, bytes] = field(default_factory=dict)
    live: dict[int, Names] = field(default_factory=dict)
    paths: dict[int, Path] = field(default_factory=dict)
    promised: int = 0  # the newest step whose save has returned
    cuts: list[tuple[int, Tree]] = field(default_factory=list)

    def look(self) -> None:
        """Note what has changed since the last look."""
        before = {inode for names in self.live.values() for inode in names.values()}
        found, self.paths = self.scan(self.root), {}
        for folder, path in found:
            entries = {entry.name: entry for entry in os.scandir(path)}
            now = {name: entry.inode() for name, entry in entries.items()}
            self.paths |= {now[name]: Path(entry.path) for name, entry in entries.items()}
            for inode in set(now.values()) - before:  # a number may have been another file's before
                self.flushed.pop(inode, None)
                self.names.pop(inode, None)
                self.pending.pop(inode, None)
            self.pending.setdefault(folder, []).extend(changes(self.live.get(folder, {}), now))
            self.live[folder] = now
        self.live = {folder: self.live[folder] for folder, _ in found}

    def scan(self, path: Path) -> list[tuple[int, Path]]:
        below = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        return [(path.stat().st_ino, path), *(one for other in sorted(below) for one in self.scan(Path(other)))]

    def flush(self, descriptor: int) -> None:
        facts = os.fstat(descriptor)
        if not stat.S_ISDIR(facts.st_mode):
            self.flushed[facts.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            return
        for change in self.pending.pop(facts.st_ino, []):
            change(self.names.setdefault(facts.st_ino, {}))

    def cut(self) -> None:
        """Some of what a power cut may leave now: all that can be lost is, none of it is, by chance."""
        for keep in (0.0, 1.0, 0.5):
            tree: Tree = {}
            self.fill(tree, "", self.root.stat().st_ino, keep)
            if (self.promised, tree) not in self.cuts:
                self.cuts.append((self.promised, tree))

    def fill(self, tree: Tree, place: str, folder: int, keep: float) -> None:
        names = dict(self.names.get(folder, {}))
        for change in self.pending.get(folder, []):
            if self.dice.random() < keep:
                change(names)
        for name, inode in names.items():
            path = self.paths.get(inode)
            if inode in self.live or inode in self.names:
                tree[f"{place}{name}"] = None
                self.fill(tree, f"{place}{name}/", inode, keep)
            else:
                tree[f"{place}{name}"] = self.content(inode, path.read_bytes() if path and path.is_file() else b"")

    def content(self, inode: int, now: bytes) -> bytes:
        """What was flushed, and of what came after it anything."""
        known = self.flushed.get(inode, b"")
        if known == now:
            return known
        more = len(now) - len(known)
        return self.dice.choice([known, known + bytes(max(0, more)), known + now[len(known) :][: max(0, more) // 2]])


def changes(before: Names, now: Names) -> Iterator[Change]:
    """What happened in a folder, each a change that is made whole or not at all."""
    gone = {inode: name for name, inode in before.items() if now.get(name) != inode}
    for name, inode in now.items():
        if before.get(name) != inode:
            source = gone.pop(inode, None)

            def moved(names: Names, name: str = name, inode: int = inode, source: str | None = source) -> None:
                if source is not None:
                    names.pop(source, None)
                names[name] = inode

            yield moved
    for inode, name in gone.items():
        if name not in now:

            def removed(names: Names, name: str = name, inode: int = inode) -> None:
                if names.get(name) == inode:
                    names.pop(name)

            yield removed


def watch(disk: Disk, patch: pytest.MonkeyPatch, *, flushes: bool) -> None:
    """Let the disk see what is asked of the system; without ``flushes`` it is not asked to keep anything."""
    turn = threading.RLock()
    fsync, save = os.fsync, Saver.save

    def flushed(descriptor: int) -> None:
        with turn:
            disk.look()
            disk.cut()
            fsync(descriptor)
            if flushes:
                disk.flush(descriptor)
            disk.cut()

    def seen(act: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **named: Any) -> Any:
            with turn:
                try:
                    return act(*arguments, **named)
                finally:
                    disk.look()

        return done

    def saved(saver: Saver, state: Any, *more: Any) -> None:
        save(saver, state, *more)
        disk.promised = saver.saved_step
        disk.cut()

    for name in ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "link"):
        patch.setattr(os, name, seen(getattr(os, name)))
    patch.setattr(os, "fsync", flushed)
    patch.setattr(Saver, "save", saved)


def lay(folder: Path, tree: Tree) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in tree.items():
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)


def run(folder: Path, **settings: Any) -> Result:
    return train(make_config({**SETTINGS, **settings}), folder)


def cuts(folder: Path, save_as: str, *, flushes: bool = True) -> list[tuple[int, Tree]]:
    """What power cuts at any time of a run may leave, each with the step that was promised by then."""
    folder.mkdir()
    disk = Disk(folder, random.Random(save_as))
    with pytest.MonkeyPatch.context() as patch:
        watch(disk, patch, flushes=flushes)
        run(folder, save_as=save_as)
    return disk.cuts


def resumed_from(result: Result) -> int:
    names = [note.removeprefix("resumed from step-") for note in result.notes if note.startswith("resumed")]
    return max((int(name.removesuffix(".pth")) for name in names), default=0)


@pytest.mark.parametrize(
    ("save_as", "count"), [("file", 3), pytest.param("file", 30, marks=SLOW), pytest.param("dcp", 12, marks=SLOW)]
)
def test_power_is_cut_at_any_time(tmp_path: Path, outcome: Any, save_as: str, count: int) -> None:
    """The run goes on from the last checkpoint whose save had returned, or a later one, to the same end."""
    run(tmp_path / "whole", save_as=save_as)
    whole = outcome(tmp_path / "whole")
    found = cuts(tmp_path / "run", save_as)
    assert {promised for promised, _ in found} == {0, 3, 6, 9, 12, 14}
    assert len(found) > 60
    for promised, tree in random.Random(count).sample(found, count):
        lay(tmp_path / "after", tree)
        result = run(tmp_path / "after", save_as=save_as)
        assert resumed_from(result) >= promised
        assert outcome(tmp_path / "after") == whole, (promised, sorted(tree))


def test_the_model_finds_a_disk_that_was_not_asked(tmp_path: Path) -> None:
    """Without a flush a checkpoint that was promised may be gone, and the model must see it."""
    lost = 0
    for promised, tree in cuts(tmp_path / "run", "file", flushes=False)[-12:]:
        lay(tmp_path / "after", tree)
        try:
            lost += resumed_from(run(tmp_path / "after")) < promised
        except Damaged:
            lost += 1
    assert lost
