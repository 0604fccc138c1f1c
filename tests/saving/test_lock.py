"""Locks: of a folder for as long as a run writes to it, of a target for the moment in which it is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ckpttool.errors import Locked
from ckpttool.saving import lock as module
from ckpttool.saving.lock import FolderLock, turn
from ckpttool.writing.durable import sweep
from ckpttool.writing.temporary import temporary_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="flock and fork are POSIX")


def locked(folder: Path) -> bool:
    """Whether another process finds the folder locked."""
    code = (
        "import sys; from pathlib import Path; from ckpttool.errors import Locked\n"
        "from ckpttool.saving.lock import FolderLock\n"
        "try: FolderLock(Path(sys.argv[1])).release()\nexcept Locked as e: print(e)"
    )
    return bool(subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True).stdout)


def test_a_folder_has_one_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    assert held.held
    assert held.mine
    assert locked(tmp_path)
    with pytest.raises(Locked, match=f"process {os.getpid()} on "):
        FolderLock(tmp_path)
    held.release()
    held.release()
    assert not held.mine
    assert not locked(tmp_path)


def test_a_child_neither_holds_nor_frees_its_parents_lock(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    child = os.fork()
    if child == 0:
        held.release()  # does nothing: the lock is not the child's
        time.sleep(30)
        os._exit(0)
    try:
        time.sleep(0.05)
        assert locked(tmp_path)
        held.release()
        assert not locked(tmp_path), "the child must not keep it"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    first.path.unlink()
    second = FolderLock(tmp_path)
    assert second.held
    assert second.path.exists()
    first.release()
    second.release()


def test_a_lock_file_may_be_unwritable_and_its_text_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    held = FolderLock(tmp_path)
    with pytest.raises(Locked, match="another process writes checkpoints here"):
        FolderLock(tmp_path)
    held.release()


def test_turns_are_taken_one_by_one_and_leave_nothing(tmp_path: Path) -> None:
    inside, most = 0, 0

    def take() -> None:
        nonlocal inside, most
        for _ in range(30):
            with turn(tmp_path / "a.pth"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_a_turn_that_never_ends_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with turn(tmp_path / "a.pth"):
        with pytest.raises(Locked, match="another writer"), turn(tmp_path / "a.pth"):
            raise AssertionError
        with turn(tmp_path / "b.pth"):
            pass


def test_a_turn_survives_a_fork_in_another_thread(tmp_path: Path) -> None:
    """A child that was forked meanwhile has the open file too; it must not keep others waiting."""
    with turn(tmp_path / "a.pth"):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with turn(tmp_path / "a.pth"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_dead_ones_lock_file_is_swept_and_a_live_ones_is_not(tmp_path: Path) -> None:
    left = temporary_path(tmp_path / "a.pth", "0" * 12)
    left.touch()
    sweep(tmp_path / "a.pth")
    assert not left.exists()
    with turn(tmp_path / "a.pth"):
        sweep(tmp_path / "a.pth")
        assert left.exists()


def test_without_locks_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    held = FolderLock(tmp_path)
    assert not held.held
    assert held.mine
    with turn(tmp_path / "a.pth"), turn(tmp_path / "a.pth"):
        pass
    held.release()
