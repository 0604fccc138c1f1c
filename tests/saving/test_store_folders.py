"""Checkpoints of a store that are folders: published whole, passed over when damaged, replaced, let go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import ckpttool
from ckpttool.saving import folders

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")  # alone, as it should be

from torch.distributed import checkpoint as dcp  # noqa: E402 - it needs torch


def state(step: int) -> dict[str, Any]:
    return {"model": {"w": torch.full((64,), float(step))}, "step": step}


def save(store: ckpttool.CheckpointStore, step: int, metric: float | None = None, content: int = -1) -> None:
    with store.save_folder(step=step, metric=metric) as folder:
        dcp.save(state(step if content < 0 else content), checkpoint_id=folder, no_dist=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def weight(folder: Path) -> float:
    found: dict[str, Any] = {"model": {"w": torch.zeros(64)}, "step": 0}
    dcp.load(found, checkpoint_id=folder, no_dist=True)
    return float(found["model"]["w"][0])


def test_published_sealed_and_found(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        save(store, 5)
        found = store.load_latest()
        assert found is not None
        assert (found.step, found.path, found.state) == (5, tmp_path / "step-00000005", None)
        assert store.latest() == found.path
    assert (found.path / "ckpttool.manifest.json").exists()
    assert ckpttool.verify([found.path]).exit_code == 0
    assert ckpttool.latest(tmp_path).json["path"] == str(found.path)
    assert weight(found.path) == 5.0


def test_retention_counts_files_and_folders_alike(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=2, every=4, best=1) as store:
        save(store, 4, metric=3.0)
        save(store, 5, metric=1.0)
        store.save(state(6), step=6, metric=2.0)
        save(store, 7, metric=2.0)
        store.save(state(8), step=8, metric=2.0)
        assert [step for step, _ in store.steps()] == [4, 5, 7, 8]
    assert not [name for name in names(tmp_path) if name.startswith("step-00000006")]


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "empty", "no metadata"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, harm: str) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        save(store, 5)
        save(store, 6)
    newest = tmp_path / "step-00000006"
    data = next(newest.glob("*.distcp"))
    if harm == "flip":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif harm == "cut":
        data.write_bytes(data.read_bytes()[:-100])
    elif harm == "gone":
        data.unlink()
    elif harm == "empty":
        shutil.rmtree(newest)
        newest.mkdir()
    else:
        (newest / ".metadata").unlink()
    with ckpttool.CheckpointStore(tmp_path) as store:
        with pytest.warns(UserWarning, match="step-00000006"):
            found = store.load_latest()
        assert found is not None
        assert found.step == 5
        assert [path for path, _ in found.skipped] == [newest]
        save(store, 6, content=60)  # in its place
        assert weight(newest) == 60.0
        assert store.latest() == newest


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        save(store, 5)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ckpttool.WriteFailed), store.save_folder(step=5) as folder:  # noqa: PT012
            (folder / "half").write_bytes(b"half")
            (folder / "gone").read_bytes()
        assert sorted(tmp_path.rglob("*")) == before
        with pytest.raises(ckpttool.WriteFailed, match="not sound"), store.save_folder(step=6):
            pass
        assert sorted(tmp_path.rglob("*")) == before


def test_killed_while_one_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its two renames the old one has a hidden name; whoever opens the folder next gives it back."""

    class Killed(BaseException):
        pass

    with ckpttool.CheckpointStore(tmp_path) as store:
        save(store, 5)
        rename = Path.rename

        def killed(self: Path, target: Path) -> Path:
            if target == tmp_path / "step-00000005":
                raise Killed
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            save(store, 5, content=50)
        monkeypatch.undo()
        assert store.latest() is None
    with ckpttool.CheckpointStore(tmp_path) as store:
        assert store.latest() == tmp_path / "step-00000005"
        assert weight(tmp_path / "step-00000005") == 5.0
        save(store, 5, content=51)
        assert weight(tmp_path / "step-00000005") == 51.0
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(folders.REPLACED)]


def test_a_deletion_that_was_killed_is_finished(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        save(store, 5)
    (tmp_path / "step-00000005").rename(tmp_path / f".step-00000005{folders.GOING}")
    (tmp_path / f".mine{folders.GOING}").mkdir()
    with ckpttool.CheckpointStore(tmp_path) as store:
        assert store.steps() == []
        assert store.load_latest() is None
    assert [path.name for path in tmp_path.iterdir() if "step" in path.name] == []
    assert (tmp_path / f".mine{folders.GOING}").exists()


def test_what_may_run_code_is_not_passed_over(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import FileSystemWriter

    with ckpttool.CheckpointStore(tmp_path) as store:
        save(store, 5)
        with store.save_folder(step=6) as folder:
            state = {"w": torch.ones(3), "call": Calls()}
            dcp.save(state, storage_writer=FileSystemWriter(folder), no_dist=True)
        with pytest.raises(ckpttool.Unsafe):
            store.load_latest()


class Calls:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("true",)
