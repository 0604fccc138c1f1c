"""Pruning deletes what was asked for and never more, whatever stands in the folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ckpttool.errors import ExitCode, WriteFailed
from ckpttool.testing.samples import run_files, training_state, weights
from ckpttool.testing.writers import safetensors_file, sharded_files, torch_file
from ckpttool.verbs import deleting
from ckpttool.verbs.latest import latest
from ckpttool.verbs.prune import prune
from ckpttool.verbs.seal import seal
from ckpttool.verbs.verify import verify

GOOD = torch_file(training_state())
WEIGHTS = safetensors_file(weights(), {"format": "pt"})


def put(folder: Path, *names: str, data: bytes = GOOD) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def left(folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in folder.rglob("*") if not path.is_dir()}


def reasons(folder: Path, **wishes: Any) -> dict[str, list[str]]:
    found: Any = prune(folder, **wishes).data["checkpoints"]
    return {os.path.relpath(c["path"], folder): c["keep"] for c in found}


def test_the_runs_own_folder_is_never_deleted(tmp_path: Path) -> None:
    """The final model of transformers' Trainer stands beside the checkpoints that it came from."""
    for step in (500, 1000):
        for name, data in run_files().items():
            put(tmp_path, f"checkpoint-{step}/{name}", data=data)
    for name in ("model.safetensors", "trainer_state.json", "training_args.bin"):
        put(tmp_path, name, data=run_files()[name])
        os.utime(tmp_path / name, (1, 1))
    assert "holds others" in reasons(tmp_path, keep_last=1)["."]
    prune(tmp_path, keep_last=1, delete=True)
    assert (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "checkpoint-1000" / "optimizer.pt").exists()
    assert not (tmp_path / "checkpoint-500").exists()


def test_deleting_refuses_a_folder_with_another_checkpoint_in_it(tmp_path: Path) -> None:
    from ckpttool.verbs.runs import candidates

    put(tmp_path, "step-1/model.pth", "step-1/inner/step-2.pth")
    first, second = candidates(tmp_path)
    outer = first if first.path.endswith("step-1") else second
    with pytest.raises(WriteFailed, match="holds other checkpoints"):
        deleting.delete_checkpoint(
            type(outer)(str(tmp_path / "step-1"), 0, 1, 0, (str(tmp_path / "step-1/model.pth"),)),
            [first, second],
            tmp_path,
        )
    assert left(tmp_path) == {"step-1/model.pth", "step-1/inner/step-2.pth"}


def test_files_of_one_step_go_together(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        put(
            tmp_path, f"iter_{step:07d}/mp_rank_00/model_optim_rng.pt", f"iter_{step:07d}/mp_rank_01/model_optim_rng.pt"
        )
        put(tmp_path, f"custom/step_{step}/model.pth", f"custom/step_{step}/optimizer.pth")
        put(tmp_path, f"ranks/ba{step}-rank0.pt", f"ranks/ba{step}-rank1.pt")
    prune(tmp_path, keep_last=1, delete=True)
    assert left(tmp_path) == {
        "iter_0000003/mp_rank_00/model_optim_rng.pt",
        "iter_0000003/mp_rank_01/model_optim_rng.pt",
        "custom/step_3/model.pth",
        "custom/step_3/optimizer.pth",
        "ranks/ba3-rank0.pt",
        "ranks/ba3-rank1.pt",
    }
    assert not (tmp_path / "iter_0000001").exists()


def test_a_folder_that_is_left_empty_goes(tmp_path: Path) -> None:
    for step in (1, 2):
        put(tmp_path, f"iter_{step:07d}/mp_rank_00/model_optim_rng.pt")
    prune(tmp_path, keep_last=1, delete=True)
    assert [p.name for p in tmp_path.iterdir()] == ["iter_0000002"]


@pytest.mark.parametrize("link", ["last.ckpt", "deep/best.ckpt"])
def test_what_a_link_points_to_stays(tmp_path: Path, link: str) -> None:
    put(tmp_path, "step-1.ckpt", "step-2.ckpt", "step-3.ckpt")
    put(tmp_path, "deep/step-9.ckpt")
    (tmp_path / link).symlink_to(tmp_path / "step-1.ckpt")
    prune(tmp_path, keep_last=1, delete=True)
    assert {"step-1.ckpt", "step-3.ckpt", link} <= left(tmp_path)
    assert "step-2.ckpt" not in left(tmp_path)


def test_what_a_link_to_a_folder_points_to_stays(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        for name, data in run_files().items():
            put(tmp_path, f"checkpoint-{step}/{name}", data=data)
    (tmp_path / "best").symlink_to("checkpoint-1")
    prune(tmp_path, keep_last=1, delete=True)
    assert {p.name for p in tmp_path.iterdir()} == {"best", "checkpoint-1", "checkpoint-3"}
    assert reasons(tmp_path, keep_last=1)["checkpoint-1"] == ["'best' names it"]


def test_what_a_tracker_names_stays(tmp_path: Path) -> None:
    put(tmp_path, "epoch_1.pth", "epoch_2.pth", "epoch_3.pth")
    put(tmp_path, "last_checkpoint", data=b"/elsewhere/epoch_1.pth")
    prune(tmp_path, keep_last=1, delete=True)
    assert left(tmp_path) == {"epoch_1.pth", "epoch_3.pth", "last_checkpoint"}


def test_what_is_not_numbered_stays_where_others_are(tmp_path: Path) -> None:
    put(tmp_path, "step-1.pth", "step-2.pth", "final.pth", "model_best.pth")
    prune(tmp_path, keep_last=1, delete=True)
    assert left(tmp_path) == {"step-2.pth", "final.pth", "model_best.pth"}


def test_each_series_is_pruned_on_its_own(tmp_path: Path) -> None:
    for version in (0, 1):
        put(tmp_path, *(f"version_{version}/epoch={n}-step={n * 10}-loss=0.{n}.ckpt" for n in (1, 2, 3)))
    put(tmp_path, "best_mAP_epoch_1.pth", "epoch_1.pth", "epoch_2.pth")
    prune(tmp_path, keep_last=1, delete=True)
    assert left(tmp_path) == {
        "version_0/epoch=3-step=30-loss=0.3.ckpt", "version_1/epoch=3-step=30-loss=0.3.ckpt",
        "best_mAP_epoch_1.pth", "epoch_2.pth",
    }  # fmt: skip


def test_the_newest_sound_one_stays_whatever_is_asked(tmp_path: Path) -> None:
    put(tmp_path, "step-10.pth", "step-11.pth", "step-12.pth")
    put(tmp_path, "step-13.pth", data=GOOD[:9000])
    assert reasons(tmp_path, keep_every=10) == {
        "step-13.pth": [], "step-12.pth": ["newest"], "step-11.pth": [], "step-10.pth": ["every"],
    }  # fmt: skip
    prune(tmp_path, keep_every=10, delete=True)
    assert left(tmp_path) == {"step-12.pth", "step-10.pth"}


def test_a_part_that_is_missing_stops_the_deletion(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        put(tmp_path, f"ba{step}-rank0.pt", f"ba{step}-rank1.pt")
    (tmp_path / "ba3-rank1.pt").unlink()
    report = prune(tmp_path, keep_last=1, delete=True)
    assert report.exit_code == ExitCode.FINDINGS
    assert len(left(tmp_path)) == 5


def test_shards_go_with_their_index_and_never_others(tmp_path: Path) -> None:
    for step in (1, 2):
        for name, data in sharded_files(weights()).items():
            put(tmp_path, f"step-{step}/{name}", data=data)
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes(WEIGHTS)
    index = tmp_path / "step-1" / "model.safetensors.index.json"
    hostile = json.loads(index.read_bytes())
    hostile["weight_map"].update(evil=f"../{victim.name}", worse=str(victim))
    index.write_text(json.dumps(hostile))
    put(tmp_path, "step-1/notes.txt", data=b"mine")
    prune(tmp_path, keep_last=1, delete=True)
    kept = {f"step-2/{name}" for name in sharded_files(weights())}
    assert left(tmp_path) == {*kept, "victim.safetensors", "step-1/notes.txt"}


def test_a_shard_that_another_index_uses_stays(tmp_path: Path) -> None:
    files = sharded_files(weights())
    for name, data in files.items():
        put(tmp_path, name, data=data)
    index = (tmp_path / "model.safetensors.index.json").read_bytes()
    (tmp_path / "model.safetensors.index.json").unlink()
    put(tmp_path, "step-1.safetensors.index.json", "step-2.safetensors.index.json", data=index)
    prune(tmp_path, keep_last=1, delete=True)
    assert left(tmp_path) == {*files, "step-2.safetensors.index.json"} - {"model.safetensors.index.json"}
    assert verify([tmp_path / "step-2.safetensors.index.json"]).exit_code == 0


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    "layout", ["files", *(pytest.param(n, marks=pytest.mark.slow) for n in ("folders", "shards", "ranks"))]
)
def test_an_interruption_leaves_nothing_that_looks_whole(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at the first change to the disk, at the second, …: then the next run finishes it."""
    source = tmp_path / "source"
    for step in (1, 2, 3):
        if layout == "folders":
            for name, data in run_files().items():
                put(source, f"checkpoint-{step}/{name}", data=data)
        elif layout == "shards":
            for name, data in sharded_files(weights()).items():
                put(source, f"step-{step}/{name}", data=data)
        elif layout == "ranks":
            put(source, f"ba{step}-rank0.pt", f"ba{step}-rank1.pt")
        else:
            put(source, f"step-{step}.pth")
            seal(source / f"step-{step}.pth")
    clean = tmp_path / "clean"
    shutil.copytree(source, clean)
    prune(clean, keep_last=1, delete=True)
    changes = 0
    while True:
        changes += 1
        run = tmp_path / f"run{changes}"
        shutil.copytree(source, run)
        if not interrupted(run, changes, monkeypatch):
            break
        report: Any = verify([run], fail_on="never").json
        by_step = {Path(t["path"]).parent.name: t["state"] for t in report["targets"]}
        if layout == "shards":
            assert by_step["step-3"] == "complete"
            assert all(len(list((run / s).glob("*.safetensors"))) == 2 for s, x in by_step.items() if x == "complete")
        elif layout != "ranks":
            assert {t["state"] for t in report["targets"]} == {"complete"}, changes
        newest = str(latest(run).data["path"])
        assert "3" in os.path.relpath(newest, run)
        prune(run, keep_last=1, delete=True)
        assert left(run) - {".ckpttool.lock"} == left(clean), changes
    assert changes > 3


def interrupted(run: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Prune, and end it before its change number ``after``; whether it came so far."""
    count = 0

    def wrap(function: Any) -> Any:
        def called(*arguments: Any, **wishes: Any) -> Any:
            nonlocal count
            count += 1
            if count == after:
                raise Killed
            return function(*arguments, **wishes)

        return called

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir", "rename"):
            patch.setattr(os, name, wrap(getattr(os, name)))
        try:
            prune(run, keep_last=1, delete=True)
        except Killed:
            return True
    return False


def test_what_cannot_be_deleted_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "step-1.pth", "step-2.pth")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteFailed, match=r"step-1\.pth – cannot be deleted: Operation not permitted"):
        prune(tmp_path, keep_last=1, delete=True)
