"""Folders that transformers' ``Trainer`` and ``save_pretrained`` write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ckpttool import describe
from ckpttool.profiles import lay_out

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def tiny(framework: Any, torch: Any) -> Any:
    """A GPT-2 with random weights, a few kilobytes of them."""
    transformers = framework("transformers")
    torch.manual_seed(7)
    tokens = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = transformers.GPT2Config(n_positions=16, n_embd=8, n_layer=2, n_head=2, **tokens)
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def run(framework: Any, torch: Any, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a run of four steps with a checkpoint every second, and the model it ended with."""
    transformers = framework("transformers")
    folder = tmp_path_factory.mktemp("trainer")
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(3, 32, (16, 8))]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(model=tiny, args=arguments, train_dataset=rows)
    trainer.train()
    return folder, trainer.model


@pytest.fixture
def saved(run: tuple[Path, Any], tmp_path: Path) -> Path:
    """The last checkpoint, a copy to break."""
    return Path(shutil.copytree(run[0] / "checkpoint-4", tmp_path / "checkpoint-4"))


@pytest.fixture
def shards(tiny: Any, tmp_path: Path) -> Path:
    """A model in several files."""
    folder = tmp_path / "sharded"
    tiny.save_pretrained(folder, max_shard_size="4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


# --- Trainer -----------------------------------------------------------------------------------------------


def test_a_checkpoint_resumes_exactly(framework: Any, judged: Any, saved: Path) -> None:
    found = judged(saved, require="exact")
    version = framework("transformers").__version__
    assert found["writer"] == {"framework": "transformers Trainer", "version": version, "confidence": "confirmed"}
    assert (found["format"], found["verdict"], found["exit_code"]) == ("directory", "exact", 0)
    assert found["next"] == "step 4"
    assert found["integrity"] == "unprovable"


def test_only_the_settings_need_code(judged: Any, saved: Path) -> None:
    found = judged(saved)
    assert (found["safety"], found["names"]) == ("needs-code", {"needs-code"})
    (where,) = {f["where"] for f in found["findings"]}
    assert where.startswith("training_args.bin")


def test_a_run_is_as_many_targets_as_it_has_checkpoints(run: tuple[Path, Any]) -> None:
    from ckpttool import verify

    targets: Any = verify([run[0]]).json["targets"]
    assert [Path(t["path"]).name for t in targets] == ["checkpoint-2", "checkpoint-4"]
    assert [t["next"] for t in targets] == ["step 2", "step 4"]


def test_each_file_is_what_torch_loads(torch: Any, same: Any, saved: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        same(saved / name, torch.load(saved / name, weights_only=False))


def test_weights_are_what_from_pretrained_gives(
    framework: Any, content: Any, as_content: Any, saved: Path, run: tuple[Path, Any]
) -> None:
    loaded = framework("transformers").GPT2LMHeadModel.from_pretrained(saved).state_dict()
    loaded.pop("lm_head.weight")  # tied to the embedding, and saved once
    assert content(saved / "model.safetensors") == as_content(loaded)
    trained = run[1].state_dict()
    trained.pop("lm_head.weight")
    assert content(saved / "model.safetensors") == as_content(trained)


def test_optimizer_slots_are_named_as_the_trainer_groups_them(run: tuple[Path, Any], saved: Path) -> None:
    (optimizer,) = lay_out(describe(saved)).optimizers
    assert optimizer.kind == "AdamW"
    shapes = {name: tuple(p.shape) for name, p in run[1].named_parameters()}
    assert len(optimizer.slots) == len(shapes)
    decayed = [name for name in shapes if len(shapes[name]) > 1]
    plain = [name for name in shapes if len(shapes[name]) == 1]
    assert [slot.shape for slot in optimizer.slots] == [shapes[name] for name in (*decayed, *plain)]
    for slot, name in zip(optimizer.slots, (*decayed, *plain), strict=True):
        assert slot.name in (None, name)


def test_without_its_last_file_the_save_did_not_finish(judged: Any, saved: Path) -> None:
    (saved / "trainer_state.json").unlink()
    found = judged(saved)
    assert (found["verdict"], found["exit_code"]) == ("damaged", 1)
    assert "unfinished-save" in found["names"]


@pytest.mark.parametrize("part", ["optimizer", "scheduler", "rng"])
def test_a_missing_file_is_a_missing_part(part: str, judged: Any, saved: Path) -> None:
    next(saved.glob(f"{part}*.pt*")).unlink()
    found = judged(saved, require="exact")
    assert (found["verdict"] == "exact", found["exit_code"]) == (False, 1)
    assert any(missing.startswith(part) for missing in found["missing"])
    assert "requirement-not-met" in found["names"]


# --- save_pretrained ---------------------------------------------------------------------------------------


def test_shards_are_one_checkpoint_by_folder_and_by_index(judged: Any, tiny: Any, shards: Path) -> None:
    by_folder, by_index = judged(shards, require="weights"), judged(shards / INDEX, require="weights")
    assert by_folder == by_index
    assert (by_folder["format"], by_folder["verdict"]) == ("sharded", "weights-only")
    assert (by_folder["exit_code"], by_folder["names"] - {"not-resumable"}) == (0, set())
    assert by_folder["parameters"] == sum(p.numel() for p in tiny.parameters())


def test_shards_hold_what_from_pretrained_gives(framework: Any, content: Any, as_content: Any, shards: Path) -> None:
    loaded = framework("transformers").GPT2LMHeadModel.from_pretrained(shards).state_dict()
    loaded.pop("lm_head.weight")
    assert content(shards / INDEX) == as_content(loaded)


def test_every_shard_that_is_gone_is_missed(judged: Any, shards: Path) -> None:
    for shard in sorted(shards.glob("model-*.safetensors")):
        kept = shard.read_bytes()
        shard.unlink()
        found = judged(shards)
        assert (found["verdict"], found["exit_code"]) == ("damaged", 1)
        assert any(shard.name in f["message"] + f["where"] for f in found["findings"])
        assert "missing-shard" in found["names"]
        shard.write_bytes(kept)
    assert judged(shards)["exit_code"] == 0


def test_a_shard_cut_short_is_found(judged: Any, shards: Path) -> None:
    shard = max(shards.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    found = judged(shards)
    assert (found["verdict"], found["exit_code"]) == ("damaged", 1)


def test_a_key_that_the_index_puts_into_another_shard_is_found(judged: Any, shards: Path) -> None:
    index = json.loads((shards / INDEX).read_text())
    key, shard = next(iter(index["weight_map"].items()))
    index["weight_map"][key] = next(s for s in index["weight_map"].values() if s != shard)
    (shards / INDEX).write_text(json.dumps(index))
    found = judged(shards)
    assert (found["verdict"], found["exit_code"]) == ("damaged", 1)
    assert "key-not-in-shard" in found["names"]


def test_a_model_in_one_file(
    framework: Any, judged: Any, content: Any, as_content: Any, tiny: Any, tmp_path: Path
) -> None:
    tiny.save_pretrained(tmp_path)
    loaded = framework("safetensors.torch").load_file(tmp_path / "model.safetensors")
    assert content(tmp_path / "model.safetensors") == as_content(loaded)
    found = judged(tmp_path, require="weights")
    assert (found["format"], found["verdict"], found["exit_code"]) == ("safetensors", "weights-only", 0)
