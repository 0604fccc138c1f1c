"""Power cuts, by a model: what a disk may hold after one, state by state, and a checkpoint in each.

A run records what a save asks of the system: names made, moved and taken, contents flushed, the folder flushed. After
a cut, contents that were flushed are whole, others anything; names are as at the folder's last flush, with any
of the changes since then, in any combination. (After Pillai et al., *All File Systems Are Not Created Equal*, 2014.)
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import ckpttool

torch = pytest.importorskip("torch")

Names = dict[str, int]  # the inode behind each
Change = Callable[[Names], None]


@dataclass
class Disk:
    """What is certain to be on the disk, and what is not yet."""

    folder: Path
    names: Names = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    flushed: dict[int, bytes] = field(default_factory=dict)
    inodes: Names = field(default_factory=dict)

    def begin(self) -> None:
        for path in self.folder.iterdir():
            inode = path.stat().st_ino
            self.names[path.name] = self.inodes[path.name] = inode
            self.flushed[inode] = path.read_bytes()

    def here(self, path: Any) -> str | None:
        found = Path(os.fspath(path))
        return found.name if found.parent == self.folder else None

    def created(self, name: str, inode: int) -> None:
        if self.inodes.get(name) != inode:
            self.inodes[name] = inode
            self.flushed.pop(inode, None)  # a number that was used before
            self.pending.append(lambda names: names.update({name: inode}))

    def moved(self, source: str, target: str) -> None:
        inode = self.inodes.pop(source)
        self.inodes[target] = inode

        def change(names: Names) -> None:
            names.pop(source, None)
            names[target] = inode

        self.pending.append(change)

    def removed(self, name: str) -> None:
        inode = self.inodes.pop(name, None)

        def change(names: Names) -> None:
            if names.get(name) == inode:
                names.pop(name)

        self.pending.append(change)

    def folder_flushed(self) -> None:
        for change in self.pending:
            change(self.names)
        self.pending.clear()

    def states(self) -> Iterator[dict[str, bytes]]:
        """Every state that a cut may leave now."""
        for count in range(len(self.pending) + 1):
            for some in itertools.combinations(self.pending, count):
                names = dict(self.names)
                for change in some:
                    change(names)
                loose = [name for name, inode in names.items() if inode not in self.flushed]
                for contents in itertools.product((b"", b"\0" * 5000, b"PK\3\4{"), repeat=len(loose)):
                    known = {n: self.flushed[i] for n, i in names.items() if i in self.flushed}
                    yield {**known, **dict(zip(loose, contents, strict=True))}


@pytest.fixture
def record(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Path, Callable[[], object]], set[tuple[tuple[str, bytes], ...]]]:
    """Runs a save and gives every state that a power cut at any moment of it may leave."""

    def run(folder: Path, save: Callable[[], object]) -> set[tuple[tuple[str, bytes], ...]]:
        disk = Disk(folder)
        disk.begin()
        found: set[tuple[tuple[str, bytes], ...]] = set()

        def note() -> None:
            found.update(tuple(sorted(state.items())) for state in disk.states())

        real = {name: getattr(os, name) for name in ("open", "fsync", "rename", "replace", "unlink", "link")}

        def open_(path: Any, flags: int, *rest: Any, **wishes: Any) -> int:
            descriptor: int = real["open"](path, flags, *rest, **wishes)
            name = disk.here(path)
            if name is not None and flags & os.O_CREAT:
                disk.created(name, os.fstat(descriptor).st_ino)
                note()
            return descriptor

        def fsync(descriptor: int) -> None:
            real["fsync"](descriptor)
            facts = os.fstat(descriptor)
            if stat.S_ISDIR(facts.st_mode):
                disk.folder_flushed()
            else:
                disk.flushed[facts.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            note()

        def move(kind: str) -> Callable[..., None]:
            def moved(source: Any, target: Any, **wishes: Any) -> None:
                real[kind](source, target, **wishes)
                disk.moved(str(disk.here(source)), str(disk.here(target)))
                note()

            return moved

        def unlink(path: Any, **wishes: Any) -> None:
            real["unlink"](path, **wishes)
            disk.removed(str(disk.here(path)))
            note()

        with monkeypatch.context() as patch:
            for name, function in (("open", open_), ("fsync", fsync), ("unlink", unlink)):
                patch.setattr(os, name, function)
            patch.setattr(os, "rename", move("rename"))
            patch.setattr(os, "replace", move("replace"))
            note()
            save()
            note()
        return found

    return run


def state(step: int) -> dict[str, Any]:
    return {"model": {"w": torch.full((300,), float(step))}, "step": step}


def lay(folder: Path, files: tuple[tuple[str, bytes], ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files:
        (folder / name).write_bytes(data)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads an open file by its number")


@needs_proc
@pytest.mark.parametrize("before", [True, False], ids=["sealed", "unsealed"])
def test_one_file_is_the_old_or_the_new_one(tmp_path: Path, record: Any, before: bool) -> None:
    run, after = tmp_path / "run", tmp_path / "after"
    run.mkdir()
    ckpttool.save(state(1), run / "a.pth", manifest=before)
    states = record(run, lambda: ckpttool.save(state(2), run / "a.pth"))
    steps = set()
    for files in states:
        lay(after, files)
        assert ckpttool.verify([after / "a.pth"]).exit_code == 0, [name for name, _ in files]
        steps.add(ckpttool.load(after / "a.pth")["step"])
        ckpttool.save(state(3), after / "a.pth")
        assert sorted(p.name for p in after.iterdir()) == ["a.pth", "a.pth.manifest.json"]
    assert steps == {1, 2}
    assert len(states) > 20


@needs_proc
@pytest.mark.parametrize("orphan", [False, True], ids=["alone", "manifest of another"])
def test_a_new_file_is_whole_or_not_there(tmp_path: Path, record: Any, orphan: bool) -> None:
    run, after = tmp_path / "run", tmp_path / "after"
    run.mkdir()
    if orphan:
        ckpttool.save(state(1), run / "a.pth")
        (run / "a.pth").unlink()
    seen = 0
    for files in record(run, lambda: ckpttool.save(state(2), run / "a.pth")):
        lay(after, files)
        if (after / "a.pth").exists():
            seen += 1
            assert ckpttool.load(after / "a.pth")["step"] == 2
            assert ckpttool.verify([after / "a.pth"]).exit_code == 0
    assert seen


@needs_proc
def test_a_store_always_holds_a_good_one(tmp_path: Path, record: Any) -> None:
    """Retention included: no old one is off the disk before the new one is on it."""
    run, after = tmp_path / "run", tmp_path / "after"
    with ckpttool.CheckpointStore(run, keep=1) as store:
        store.save(state(1), step=1)
        states = record(run, lambda: store.save(state(2), step=2))
    steps = set()
    for files in states:
        lay(after, files)
        found = ckpttool.CheckpointStore(after, readonly=True).load_latest()
        assert found is not None
        assert not found.skipped, "a file has its name only once it is whole"
        steps.add(found.step)
    assert steps == {1, 2}


def unsafely(obj: object, path: Path) -> None:
    """What a save without flushes would be; the model must find it wanting."""
    temporary = path.with_name("t.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT)
    os.close(descriptor)
    torch.save(obj, temporary)
    os.replace(temporary, path)  # noqa: PTH105


@needs_proc
def test_the_model_finds_a_missing_flush(tmp_path: Path, record: Any) -> None:
    run, after = tmp_path / "run", tmp_path / "after"
    run.mkdir()
    ckpttool.save(state(1), run / "a.pth", manifest=False)
    bad = 0
    for files in record(run, lambda: unsafely(state(2), run / "a.pth")):
        lay(after, files)
        bad += ckpttool.verify([after / "a.pth"]).exit_code != 0
    assert bad
