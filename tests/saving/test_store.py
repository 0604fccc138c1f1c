"""Stores: what stays, what is cleared away, and what is never taken for an empty folder."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import ckpttool
from ckpttool.manifest import sidecar
from ckpttool.writing.temporary import temporary_path

torch = pytest.importorskip("torch")


def state(step: int) -> dict[str, Any]:
    return {"model": {"w": torch.full((64,), float(step))}, "step": step}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(store: ckpttool.CheckpointStore) -> list[int]:
    return [step for step, _ in store.steps()]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_what_was_just_saved_stays_when_the_run_went_back(tmp_path: Path) -> None:
    """Later steps, damaged or sound, must not push out what the run saves now."""
    with ckpttool.CheckpointStore(tmp_path, keep=1) as store:
        store.save(state(10), step=10)
    with ckpttool.CheckpointStore(tmp_path, keep=2) as store:
        store.save(state(30), step=30)
        spoil(store.path_of(30))
    with ckpttool.CheckpointStore(tmp_path, keep=1) as store:
        with pytest.warns(UserWarning, match="step-00000030"):
            found = store.load_latest()
        assert found is not None
        assert found.step == 10
        store.save(state(15), step=15)
        assert store.path_of(15).exists()
        assert steps(store) == [15, 30]
        assert store.latest() == store.path_of(15)


def test_sound_ones_of_later_steps_are_left_alone(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=2) as store:
        for step in (10, 20, 30):
            store.save(state(step), step=step)
        store.save(state(15), step=15)
        assert steps(store) == [15, 20, 30]
        store.save(state(40), step=40)
        assert steps(store) == [30, 40]


def test_none_sound_is_no_empty_folder(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        for step in (1, 2):
            store.save(state(step), step=step)
            spoil(store.path_of(step))
        with pytest.warns(UserWarning, match="skipped"), pytest.raises(ckpttool.Damaged, match="none of its"):
            store.load_latest()


class Setting:
    """A class of the run's own."""


def test_one_that_needs_code_is_not_passed_over(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        store.save(state(1), step=1)
        store.save({"x": Setting()}, step=2)
        with pytest.raises(ckpttool.Unsafe, match=r"Setting.*`trust`"):
            store.load_latest()


def test_what_killed_writers_left_is_cleared_away(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        store.save(state(1), step=1)
    before = names(tmp_path)
    for left in ("step-00000002.pth", "step-00000002.pth.manifest.json", "metrics.json"):
        temporary_path(tmp_path / left).write_bytes(b"half")
    temporary_path(tmp_path / "notes.txt").write_bytes(b"another program's")
    sidecar(str(tmp_path / "step-00000002.pth")).write_text("{}")
    (tmp_path / "notes.txt.manifest.json").write_text("{}")
    with ckpttool.CheckpointStore(tmp_path):
        pass
    left_over = [name for name in names(tmp_path) if name not in before]
    assert [n for n in left_over if not n.startswith(".notes.txt.ckpttool-")] == ["notes.txt.manifest.json"]
    assert len(left_over) == 2


def test_a_reader_clears_nothing(tmp_path: Path) -> None:
    temporary_path(tmp_path / "step-00000002.pth").write_bytes(b"half")
    before = names(tmp_path)
    assert ckpttool.CheckpointStore(tmp_path, readonly=True).load_latest() is None
    assert names(tmp_path) == before


def test_unreadable_metrics_delete_nothing_and_are_not_written_over(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=1, best=1) as store:
        store.save(state(1), step=1, metric=0.1)
        (tmp_path / "metrics.json").write_text("oops")
        for step in (2, 3):
            with pytest.warns(UserWarning, match=r"metrics\.json – cannot be read|old ones stay"):
                store.save(state(step), step=step, metric=0.5)
        assert steps(store) == [1, 2, 3]
        assert (tmp_path / "metrics.json").read_text() == "oops"
        assert store.metrics() == {}


def test_prune_keeps_the_best_by_what_was_noted(tmp_path: Path) -> None:
    from ckpttool.verbs.prune import prune

    with ckpttool.CheckpointStore(tmp_path, keep=None, lower=False) as store:
        for step, accuracy in enumerate([0.5, 0.9, 0.7]):
            store.save(state(step), step=step, metric=accuracy)
        prune(tmp_path, keep_last=1, keep_best=1, delete=True)
        assert steps(store) == [1, 2]


def test_metrics_may_be_tensors_or_nan(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=1, best=1) as store:
        for step, metric in ((1, torch.tensor(0.25)), (2, float("nan")), (3, float("inf"))):
            store.save(state(step), step=step, metric=metric)
        assert store.metrics()[1] == 0.25
        assert steps(store) == [1, 3]


def test_an_old_one_that_cannot_go_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=1) as store:
        store.save(state(1), step=1)
        real = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path.name == "step-00000001.pth":
                raise PermissionError(1, "Operation not permitted")
            real(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", refuse)
        with pytest.warns(UserWarning, match="step 2 is saved, and old ones stay"):
            store.save(state(2), step=2)
        assert steps(store) == [1, 2]


def test_a_child_cannot_write_to_its_parents_store(tmp_path: Path) -> None:
    store = ckpttool.CheckpointStore(tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.save({}, step=1)
        except ckpttool.UsageError as error:
            code = 0 if "forked" in str(error) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.save(state(1), step=1)
    store.close()


def test_threads_take_turns(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=3) as store:

        def run(first: int) -> None:
            for step in range(first, 24, 4):
                store.save(state(step), step=step, metric=step)

        threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.metrics() == {step: step for step in range(24)}
        found = store.load_latest()
        assert found is not None
        assert found.step == 23


def test_a_reader_never_sees_a_bad_one_nor_none(tmp_path: Path) -> None:
    """A writer that keeps one checkpoint deletes what the reader has just listed."""
    with ckpttool.CheckpointStore(tmp_path, keep=1) as store:
        store.save(state(0), step=0)
        done = threading.Event()

        def write() -> None:
            for step in range(1, 60):
                store.save(state(step), step=step)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        reader = ckpttool.CheckpointStore(tmp_path, readonly=True)
        seen = []
        end = time.monotonic() + 60
        while not done.is_set() and time.monotonic() < end:
            found = reader.load_latest()
            assert found is not None
            assert found.state["step"] == found.step
            assert not found.skipped
            seen.append(found.step)
        writer.join()
        assert seen == sorted(seen)


def test_a_folder_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    import shutil

    with ckpttool.CheckpointStore(tmp_path / "run") as store:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(ckpttool.WriteFailed, match="does not exist; make it first") as caught:
            store.save(state(1), step=1)
        assert len(str(caught.value).splitlines()) == 1
        assert store.latest() is None


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ckpttool.WriteFailed, match="cannot be made"):
        ckpttool.CheckpointStore(tmp_path / "file" / "run")
