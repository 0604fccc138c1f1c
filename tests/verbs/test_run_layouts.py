"""Run directories as frameworks lay them out: which checkpoint is the newest, what is complete, what a tracker says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckpttool.testing.dcp import dcp_files
from ckpttool.testing.samples import distributed_state, run_files, training_state, weights
from ckpttool.testing.writers import safetensors_file, sharded_files, torch_file
from ckpttool.verbs.latest import latest
from ckpttool.verbs.runs import candidates
from ckpttool.verbs.verify import verify

GOOD = torch_file(training_state())
WEIGHTS = safetensors_file(weights(), {"format": "pt"})
OPTIMIZER = torch_file(training_state()["optimizer"])
DEEPSPEED_MODEL = torch_file(
    {"module": weights(), "ds_version": "0.19.6", "dp_world_size": 2, "global_steps": 7, "optimizer": None}
)
DEEPSPEED_RANK = torch_file(
    {
        "optimizer_state_dict": {"zero_stage": 2, "partition_count": 2, "base_optimizer_state": {}},
        "ds_version": "0.19.6",
    }
)


class Run:
    """A run directory that grows; each file is a minute younger than the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = 10**18

    def put(self, *names: str, data: bytes = GOOD) -> None:
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.time += 60 * 10**9
            os.utime(path, ns=(self.time, self.time))

    def latest(self, **wishes: Any) -> str | None:
        path: Any = latest(self.folder, **wishes).data["path"]
        return None if path is None else os.path.relpath(path, self.folder)

    def trackers(self) -> dict[str, str | None]:
        found: Any = latest(self.folder).data["trackers"]
        return {os.path.relpath(t["path"], self.folder): t["wrong"] for t in found}

    def skipped(self) -> dict[str, str]:
        found: Any = latest(self.folder).data["skipped"]
        return {os.path.relpath(s["path"], self.folder): s["why"] for s in found}

    def states(self) -> dict[str, tuple[str, str]]:
        report: Any = verify([self.folder], fail_on="never").json
        return {
            os.path.relpath(t["path"], self.folder): (t["state"], "; ".join(t["incomplete"])) for t in report["targets"]
        }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


# --- one test for each framework ---------------------------------------------------------------------------


def trainer(run: Run, step: int, **other: bytes) -> None:
    state = json.dumps({"global_step": step, "epoch": 1.0, "log_history": []}).encode()
    for name, data in {**run_files(), "trainer_state.json": state, **other}.items():
        run.put(f"checkpoint-{step}/{name}", data=data)


def test_transformers_trainer(run: Run) -> None:
    for step in (500, 1000, 1500):
        trainer(run, step)
    assert run.latest() == "checkpoint-1500"
    (run.folder / "checkpoint-1500" / "model.safetensors").write_bytes(b"")
    assert run.latest() == "checkpoint-1000"
    (run.folder / "checkpoint-1000" / "optimizer.pt").unlink()
    assert run.latest(require="resumable") == "checkpoint-500"


def test_transformers_trainer_with_the_final_model_beside(run: Run) -> None:
    trainer(run, 500)
    trainer(run, 1000)
    final = run_files()
    final["trainer_state.json"] = json.dumps({"global_step": 1200, "log_history": []}).encode()
    for name in ("model.safetensors", "trainer_state.json", "training_args.bin"):
        run.put(name, data=final[name])
    assert run.latest() == "."
    assert run.latest(require="resumable") == "checkpoint-1000"
    for path in run.folder.rglob("*"):
        os.utime(path, ns=(1, 1))  # a copy without times: the counters inside decide
    assert run.latest() == "."
    run.put("trainer_state.json", data=json.dumps({"global_step": 700, "log_history": []}).encode())
    assert run.latest() == "checkpoint-1000"


def test_a_folder_is_as_old_as_its_own_files(run: Run) -> None:
    """Not as the newest checkpoint that was saved below it."""
    run.put("model.safetensors", data=WEIGHTS)
    run.put("trainer_state.json", data=b"{}")
    trainer(run, 500)
    by_path = {os.path.relpath(c.path, run.folder): c for c in candidates(run.folder)}
    assert by_path["."].modified_ns < by_path["checkpoint-500"].modified_ns


def test_accelerate(run: Run) -> None:
    for number in (9, 10):
        run.put(f"checkpoints/checkpoint_{number}/model.safetensors", data=WEIGHTS)
        run.put(f"checkpoints/checkpoint_{number}/optimizer.bin", data=OPTIMIZER)
        for name in ("scheduler.bin", "sampler.bin", "random_states_0.pkl"):
            run.put(f"checkpoints/checkpoint_{number}/{name}", data=torch_file({"step": 1}))
    assert run.latest() == "checkpoints/checkpoint_10"


def deepspeed(run: Run, step: int, ranks: int = 2) -> None:
    run.put(f"global_step{step}/mp_rank_00_model_states.pt", data=DEEPSPEED_MODEL)
    for rank in range(ranks):
        name = f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        run.put(f"global_step{step}/{name}", data=DEEPSPEED_RANK)


def test_deepspeed(run: Run) -> None:
    deepspeed(run, 90)
    deepspeed(run, 100)
    run.put("latest", data=b"global_step100")
    run.put("zero_to_fp32.py", data=b"print()")
    assert run.latest() == "global_step100"
    assert run.trackers() == {"latest": None}
    deepspeed(run, 110)  # and killed before it wrote `latest`
    assert run.latest() == "global_step100"
    assert "not finished: latest names 'global_step100'" in run.skipped()["global_step110"]


def test_deepspeed_with_tags_that_count_nothing(run: Run) -> None:
    deepspeed(run, 90)
    run.put("best/mp_rank_00_model_states.pt", data=DEEPSPEED_MODEL)
    run.put("latest", data=b"best")
    assert run.latest() in ("best", "global_step90")
    assert not any("not finished" in why for why in run.skipped().values())


@pytest.mark.parametrize("ranks", [["mp_rank_00"], ["mp_rank_00", "mp_rank_01"], ["mp_rank_00_000", "mp_rank_00_001"]])
def test_megatron(run: Run, ranks: list[str]) -> None:
    for iteration in (9000, 10000):
        for rank in ranks:
            for name in ("model_optim_rng.pt", "distrib_optim.pt"):
                run.put(f"iter_{iteration:07d}/{rank}/{name}")
    run.put("latest_checkpointed_iteration.txt", data=b"10000\n")
    assert run.latest() == "iter_0010000"
    assert run.trackers() == {"latest_checkpointed_iteration.txt": None}
    run.put("latest_checkpointed_iteration.txt", data=b"9000")
    assert run.latest() == "iter_0009000"
    if len(ranks) > 1:
        shutil.rmtree(run.folder / "iter_0009000" / ranks[1])
        run.put("latest_checkpointed_iteration.txt", data=b"10000")
        (found,) = (c for c in candidates(run.folder) if c.count == 9000)
        assert found.lacks == tuple(f"{ranks[1]}/{n}" for n in ("distrib_optim.pt", "model_optim_rng.pt"))


def test_lightning(run: Run) -> None:
    folder = "lightning_logs/version_0/checkpoints"
    for epoch, step in ((9, 900), (10, 1000)):
        run.put(f"{folder}/epoch={epoch}-step={step}.ckpt")
    assert run.latest() == f"{folder}/epoch=10-step=1000.ckpt"
    (run.folder / folder / "last.ckpt").symlink_to("epoch=10-step=1000.ckpt")
    assert run.latest() == f"{folder}/epoch=10-step=1000.ckpt"
    assert run.trackers() == {f"{folder}/last.ckpt": None}
    run.put(f"{folder}/last-v1.ckpt")
    assert run.latest() == f"{folder}/last-v1.ckpt"


def test_mmengine(run: Run) -> None:
    run.put("best_coco_bbox_mAP_epoch_9.pth", "epoch_9.pth", "epoch_10.pth")
    run.put("last_checkpoint", data=b"/data/work_dirs/elsewhere/epoch_10.pth")
    assert run.latest() == "epoch_10.pth"
    assert run.trackers() == {"last_checkpoint": None}, "the run was moved, and the file is beside"
    for name in ("iter_9000.pth", "iter_10000.pth"):
        run.put(f"by_iter/{name}")
    assert latest(run.folder / "by_iter").data["path"] == str(run.folder / "by_iter" / "iter_10000.pth")


def test_detectron2(run: Run) -> None:
    run.put("model_0004999.pth", "model_0009999.pth", "model_final.pth")
    run.put("last_checkpoint", data=b"model_final.pth")
    assert run.latest() == "model_final.pth"
    assert run.trackers() == {"last_checkpoint": None}


def test_timm(run: Run) -> None:
    run.put("checkpoint-9.pth.tar", "checkpoint-10.pth.tar", "model_best.pth.tar", "last.pth.tar")
    assert run.latest() == "last.pth.tar"


def test_timm_after_a_copy_that_kept_no_times(run: Run) -> None:
    """``last`` and ``model_best`` count nothing; the epochs inside say which is newer."""
    for name, epoch in (("last", 10), ("checkpoint-9", 9), ("checkpoint-10", 10), ("model_best", 3)):
        data = {"epoch": epoch, "arch": "resnet18", "state_dict": weights(), "version": 2}
        run.put(f"{name}.pth.tar", data=torch_file(data))
        os.utime(run.folder / f"{name}.pth.tar", ns=(10**18, 10**18))
    assert run.latest() in ("last.pth.tar", "checkpoint-10.pth.tar")
    assert Path(candidates(run.folder)[-1].path).name == "model_best.pth.tar"


def test_torchtune(run: Run) -> None:
    for epoch in (0, 1):
        run.put(f"epoch_{epoch}/model-00001-of-00001.safetensors", data=WEIGHTS)
        run.put(f"epoch_{epoch}/model.safetensors.index.json", data=sharded_index())
        run.put(f"epoch_{epoch}/recipe_state/recipe_state.pt")
    assert run.latest() == "epoch_1"
    for step in (90, 100):
        run.put(f"by_step/step_{step}/adapter_0.pt", data=torch_file({"lora_a": weights()["embed.weight"]}))
    assert latest(run.folder / "by_step").data["path"] == str(run.folder / "by_step/step_100/adapter_0.pt")


def sharded_index() -> bytes:
    keys = dict.fromkeys(weights(), "model-00001-of-00001.safetensors")
    return json.dumps({"metadata": {}, "weight_map": keys}).encode()


def test_torchtitan(run: Run) -> None:
    for step in (900, 1000):
        for name, data in dcp_files(distributed_state(), ranks=2).items():
            run.put(f"checkpoint/step-{step}/{name}", data=data)
    assert run.latest() == "checkpoint/step-1000"
    (run.folder / "checkpoint/step-1000/.metadata").unlink()
    assert run.latest() == "checkpoint/step-900"


def test_composer(run: Run) -> None:
    for epoch, batch in ((1, 900), (2, 1000)):
        for rank in (0, 1):
            run.put(f"ep{epoch}-ba{batch}-rank{rank}.pt")
    (run.folder / "latest-rank0.pt").symlink_to("ep2-ba1000-rank0.pt")
    run.put("latest-rank0.pt.symlink", data=b"ep2-ba1000-rank0.pt")
    assert run.latest() == "ep2-ba1000-rank0.pt"
    assert [c.count for c in candidates(run.folder)] == [1000, 900]
    assert run.trackers() == {"latest-rank0.pt": None, "latest-rank0.pt.symlink": None}


def test_fairseq(run: Run) -> None:
    run.put("checkpoint1.pt", "checkpoint_1_500.pt", "checkpoint2.pt", "checkpoint_best.pt", "checkpoint_last.pt")
    assert run.latest() == "checkpoint_last.pt"
    for name in ("checkpoint_last.pt", "checkpoint_best.pt", "checkpoint_1_500.pt"):
        (run.folder / name).unlink()
    assert run.latest() == "checkpoint2.pt"


def test_ultralytics(run: Run) -> None:
    run.put("weights/epoch9.pt", "weights/epoch10.pt", "weights/best.pt", "weights/last.pt")
    run.put("results.csv", "args.yaml", data=b"epoch")
    assert run.latest() == "weights/last.pt"


def test_nanogpt(run: Run) -> None:
    run.put("out/ckpt.pt")
    assert run.latest() == "out/ckpt.pt"


def test_torchvision(run: Run) -> None:
    run.put("model_9.pth", "model_10.pth", "checkpoint.pth")
    assert run.latest() == "checkpoint.pth"


def test_llama_parts_are_one(run: Run) -> None:
    run.put("consolidated.00.pth", "consolidated.01.pth")
    assert len(candidates(run.folder)) == 1


def test_a_folder_for_each_step(run: Run) -> None:
    for step in (90, 100):
        run.put(f"step_{step}/model.pth", data=torch_file(weights()))
        run.put(f"step_{step}/trainer.pth")
    assert run.latest(require="resumable") == "step_100"
    (run.folder / "step_100/model.pth").write_bytes(GOOD[:5000])
    assert run.latest() == "step_90"


def test_steps_that_begin_anew_with_each_epoch(run: Run) -> None:
    run.put("epoch_2_iter_100.pth", "epoch_1_iter_900.pth")
    assert run.latest() == "epoch_2_iter_100.pth"


def test_a_batch_size_in_a_folders_name_counts_nothing(run: Run) -> None:
    run.put("batch_64/last.pth", "batch_32/last.pth")
    assert run.latest() == "batch_32/last.pth"


# --- trackers that are wrong -------------------------------------------------------------------------------


def test_trackers_that_name_what_is_missing(run: Run) -> None:
    run.put("step-1.pth")
    run.put("latest", data=b"global_step100")
    run.put("latest_checkpointed_iteration.txt", data=b"")
    run.put("last_checkpoint", data=b"epoch_3.pth")
    (run.folder / "last.pth").symlink_to("step-2.pth")
    assert run.latest() == "step-1.pth"
    wrong = run.trackers()
    assert "names 'global_step100', which is not there" in str(wrong["latest"])
    assert "empty" in str(wrong["latest_checkpointed_iteration.txt"])
    assert "names 'epoch_3.pth', which is not there" in str(wrong["last_checkpoint"])
    assert "names 'step-2.pth', which is not there" in str(wrong["last.pth"])


@pytest.mark.parametrize("tracker", ["last_checkpoint", "last.pth"])
def test_trackers_that_name_what_is_damaged(run: Run, tracker: str) -> None:
    run.put("epoch_1.pth")
    run.put("epoch_2.pth", data=GOOD[:9000])
    if tracker == "last.pth":
        (run.folder / tracker).symlink_to("epoch_2.pth")
    else:
        run.put(tracker, data=b"epoch_2.pth")
    assert run.latest() == "epoch_1.pth"
    assert "which will not do: " in str(run.trackers()[tracker])


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"a\0b", b"x" * 5000, b"../../../../etc", b"\x1b[31m"])
def test_trackers_may_hold_anything(run: Run, text: bytes) -> None:
    run.put("step-1.pth")
    for name in ("latest", "latest_checkpointed_iteration.txt", "last_checkpoint", "x.symlink"):
        run.put(name, data=text)
    assert run.latest() == "step-1.pth"
    assert all("\x1b" not in str(wrong) for wrong in run.trackers().values())


def test_the_command_names_wrong_trackers(run: Run) -> None:
    from click.testing import CliRunner

    from ckpttool.cli.latest import command

    run.put("step-1.pth")
    run.put("latest", data=b"step-2")
    result = CliRunner().invoke(command, [str(run.folder)])
    assert result.stdout == f"{run.folder / 'step-1.pth'}\n"
    assert "names 'step-2', which is not there" in result.stderr
    assert result.exit_code == 0


# --- what verify says of each ------------------------------------------------------------------------------


def lose(name: str) -> Callable[[Run], None]:
    return lambda run: (run.folder / name).unlink()


@pytest.mark.parametrize(
    ("missing", "said"), [("optimizer.pt", "optimizer"), ("rng_state.pth", "rng"), ("scheduler.pt", "scheduler")]
)
def test_a_trainers_checkpoint_without_a_part_is_partial(run: Run, missing: str, said: str) -> None:
    for step in (1, 2, 3):
        trainer(run, step)
    (run.folder / "checkpoint-3" / missing).unlink()
    states = run.states()
    assert states["checkpoint-2"] == ("complete", "")
    assert states["checkpoint-3"][0] == "partial"
    assert said in states["checkpoint-3"][1]


def test_a_missing_shard_is_named(run: Run) -> None:
    for step in (1, 2):
        for name, data in sharded_files(weights()).items():
            run.put(f"step-{step}/{name}", data=data)
    (run.folder / "step-2/model-00002-of-00002.safetensors").unlink()
    states = run.states()
    assert states["step-1/model.safetensors.index.json"] == ("complete", "")
    state, said = states["step-2/model.safetensors.index.json"]
    assert state == "partial"
    assert "model-00002-of-00002.safetensors" in said


def test_a_rank_that_is_missing_is_named(run: Run) -> None:
    deepspeed(run, 90)
    deepspeed(run, 100)
    (run.folder / "global_step100/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    states = run.states()
    assert states["global_step90"][0] == "complete"
    assert states["global_step100"][0] == "partial"
    assert "1" in states["global_step100"][1]


def test_dcp_without_its_metadata_is_partial(run: Run) -> None:
    for step in (1, 2):
        for name, data in dcp_files(distributed_state(), ranks=2).items():
            run.put(f"step-{step}/{name}", data=data)
    (run.folder / "step-2/.metadata").unlink()
    states = run.states()
    assert states["step-1"] == ("complete", "")
    assert states["step-2"][0] == "partial"
    assert ".metadata" in states["step-2"][1]


def test_temporary_files_are_in_progress_or_named(run: Run) -> None:
    run.put("step-1.pth", "step-2.pth.tmp")
    states = run.states()
    assert states["step-1.pth"][0] == "complete"
    assert states.get("step-2.pth.tmp", ("in progress", ""))[0] == "in progress"


def test_dcp_with_unfinished_metadata(run: Run) -> None:
    for name, data in dcp_files(distributed_state(), ranks=2).items():
        run.put(f"step-1/{name}", data=data)
    (run.folder / "step-1/.metadata").rename(run.folder / "step-1/.metadata.tmp")
    assert run.states()["step-1"][0] in ("partial", "in progress")
    assert run.latest() is None
