"""Folders as checkpoints: which files belong together, and what is a checkpoint of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ckpttool.errors import Unreadable
from ckpttool.formats import describe, directory
from ckpttool.formats.directory import find_targets
from ckpttool.formats.json_tree import nodes_of
from ckpttool.limits import DEFAULT
from ckpttool.model import Checkpoint, Mapping, Sequence, Tensor, Value
from ckpttool.tree import fields, lookup, plain

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


def safetensors(*names: str) -> bytes:
    header = {n: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate(names)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(len(names))


def made(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def trainer(folder: Path) -> Path:
    files = {"model.safetensors": safetensors("w"), "trainer_state.json": b'{"global_step": 7, "log_history": [{}]}'}
    return made(folder, **files)


def names(checkpoint: Checkpoint) -> list[str]:
    return list(fields(checkpoint, checkpoint.root))


# --- one folder, one checkpoint --------------------------------------------------------------------------


def test_a_trainer_checkpoint_maps_its_files_to_their_trees(tmp_path: Path) -> None:
    checkpoint = describe(trainer(tmp_path / "checkpoint-7"))
    assert (checkpoint.format, checkpoint.damage) == ("directory", ())
    assert names(checkpoint) == ["model.safetensors", "trainer_state.json"]
    step = lookup(checkpoint, checkpoint.root, "trainer_state.json", "global_step")
    assert plain(checkpoint, step) == 7
    assert [entry.path for entry, _ in checkpoint.tensors()] == [("model.safetensors", "w")]
    assert {extent.name for extent in checkpoint.extents} == {
        "model.safetensors: header",
        "model.safetensors: w",
        "trainer_state.json: json",
    }


def test_shards_stand_behind_their_index(tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    index = json.dumps({"weight_map": {"w": shard}}).encode()
    folder = made(
        trainer(tmp_path / "checkpoint-7"), **{shard: safetensors("w"), "model.safetensors.index.json": index}
    )
    (folder / "model.safetensors").unlink()
    checkpoint = describe(folder)
    assert names(checkpoint) == ["model.safetensors.index.json", "trainer_state.json"]
    assert [e.name for e in checkpoint.extents][1] == f"model.safetensors.index.json: {shard}: header"
    (folder / shard).unlink()
    (damage,) = describe(folder).damage
    assert (damage.rule, damage.where) == ("missing-shard", f"model.safetensors.index.json: {shard}")


@pytest.mark.parametrize("content", [POINTER, b"", b"<html>"])
def test_a_part_that_is_no_checkpoint_is_an_unreadable_part(tmp_path: Path, content: bytes) -> None:
    checkpoint = describe(made(trainer(tmp_path / "checkpoint-7"), **{"optimizer.pt": content}))
    assert [(d.rule, d.where) for d in checkpoint.damage] == [("unreadable-part", "optimizer.pt")]
    assert checkpoint.kind == ""
    assert names(checkpoint) == ["model.safetensors", "trainer_state.json"]


def test_a_broken_state_file_is_an_unreadable_part(tmp_path: Path) -> None:
    folder = trainer(tmp_path / "checkpoint-7")
    (folder / "trainer_state.json").write_bytes(b'{"global_step": 7')
    (damage,) = describe(folder).damage
    assert (damage.rule, damage.where) == ("unreadable-part", "trainer_state.json")


def test_a_link_to_nowhere_is_an_unreadable_part(tmp_path: Path) -> None:
    folder = trainer(tmp_path / "checkpoint-7")
    (folder / "optimizer.pt").symlink_to(tmp_path / "gone")
    assert [(d.rule, d.where) for d in describe(folder).damage] == [("unreadable-part", "optimizer.pt")]


def test_a_part_keeps_the_rules_of_its_damage(tmp_path: Path) -> None:
    folder = trainer(tmp_path / "checkpoint-7")
    data = safetensors("w", "x")
    (folder / "model.safetensors").write_bytes(data[:-1])
    (damage,) = describe(folder).damage
    assert (damage.rule, damage.where) == ("truncated", f"model.safetensors: byte {len(data) - 1}")


def test_files_that_are_no_parts_are_listed(tmp_path: Path) -> None:
    checkpoint = describe(made(trainer(tmp_path / "checkpoint-7"), **{"vocab.txt": b"", "merges.txt": b""}))
    assert checkpoint.metadata["beside"] == ["merges.txt", "vocab.txt"]


def test_deepspeed_inside_a_trainer_checkpoint_belongs_to_it(tmp_path: Path, fixtures_dir: Path) -> None:
    folder = trainer(tmp_path / "checkpoint-7")
    name = "mp_rank_00_model_states.pt"
    made(folder / "global_step7", **{name: (fixtures_dir / "mlp.pth").read_bytes()})
    assert find_targets(str(tmp_path)) == (str(folder),)
    assert f"global_step7/{name}" in names(describe(folder))


def test_deepspeed_says_which_tag_is_the_latest(tmp_path: Path, fixtures_dir: Path) -> None:
    tag = made(tmp_path / "step9", **{"mp_rank_00_model_states.pt": (fixtures_dir / "mlp.pth").read_bytes()})
    (tmp_path / "latest").write_text("step9\n")
    checkpoint = describe(tag)
    assert (checkpoint.metadata["layout"], checkpoint.metadata["latest"]) == ("DeepSpeed", "step9")


def test_ranks_of_llama_are_one_checkpoint(tmp_path: Path, fixtures_dir: Path) -> None:
    part = (fixtures_dir / "mlp.pth").read_bytes()
    ranks = {f"consolidated.{rank:02}.pth": part for rank in (0, 1)}
    folder = made(tmp_path / "llama", **ranks, **{"params.json": b'{"dim": 8}', "tokenizer.model": b""})
    assert find_targets(str(tmp_path)) == (str(folder),)
    checkpoint = describe(folder)
    assert checkpoint.metadata["layout"] == "Meta Llama"
    assert names(checkpoint) == [*ranks, "params.json"]
    assert checkpoint.damage == ()


def test_a_rank_of_llama_that_is_not_there(tmp_path: Path, fixtures_dir: Path) -> None:
    part = (fixtures_dir / "mlp.pth").read_bytes()
    folder = made(tmp_path, **{f"consolidated.{rank:02}.pth": part for rank in (0, 3)})
    (damage,) = describe(folder).damage
    assert (damage.rule, damage.where) == ("missing-shard", "consolidated.01.pth")
    assert damage.message == "not there: the parts' numbers say 4 ranks, and 2 of their files are here"


def test_a_single_consolidated_file_is_itself(tmp_path: Path, fixtures_dir: Path) -> None:
    made(tmp_path, **{"consolidated.00.pth": (fixtures_dir / "mlp.pth").read_bytes(), "params.json": b"{}"})
    assert describe(tmp_path).source == str(tmp_path / "consolidated.00.pth")


def test_a_folder_with_one_checkpoint_is_that_one(fixtures_dir: Path) -> None:
    assert describe(fixtures_dir / "nanogpt").source == str(fixtures_dir / "nanogpt" / "ckpt.pt")
    assert describe(fixtures_dir / "sharded").format == "sharded"


def test_a_folder_with_none_or_several_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        describe(tmp_path)
    made(tmp_path, **{"a.pt": b"", "b.pt": b""})
    assert not directory.sniff_path(str(tmp_path))
    assert not directory.sniff_path(str(tmp_path / "a.pt"))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("trainer/checkpoint-2", "transformers Trainer"),
        ("accelerate", "accelerate"),
        ("deepspeed/global_step1", "DeepSpeed"),
    ],
)
def test_real_folders(fixtures_dir: Path, name: str, layout: str) -> None:
    if not (fixtures_dir / name).is_dir():
        pytest.skip(f"fixtures/{name} is not here")
    checkpoint = describe(fixtures_dir / name)
    assert checkpoint.metadata["layout"] == layout
    assert {d.rule for d in checkpoint.damage} <= {"foreign-opcode"}
    apart = sum(len(list(describe(path).tensors())) for path in map(Path, checkpoint.files) if path.suffix != ".json")
    assert len(list(checkpoint.tensors())) == apart
    extents = {extent.name for extent in checkpoint.extents}
    assert {storage.record for storage in checkpoint.storages} <= extents
    used = [node.storage for node in checkpoint.nodes if isinstance(node, Tensor) and node.storage is not None]
    assert set(used) == set(range(len(checkpoint.storages)))


# --- targets ---------------------------------------------------------------------------------------------


def relative(folder: Path) -> list[str]:
    return [os.path.relpath(target, folder) for target in find_targets(str(folder))]


def test_a_run_lists_its_checkpoints_in_natural_order(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        trainer(tmp_path / f"checkpoint-{step}")
    made(tmp_path, **{"training_args.bin": b"", "README.md": b""})
    assert relative(tmp_path) == ["checkpoint-9", "checkpoint-10", "checkpoint-100", "training_args.bin"]


def test_shards_are_not_listed_beside_their_index(tmp_path: Path) -> None:
    named = {"odd name.safetensors": safetensors("w"), "model-00001-of-00002.safetensors": safetensors("x")}
    index = json.dumps({"weight_map": {"w": "odd name.safetensors"}}).encode()
    made(tmp_path, **named, **{"model.safetensors.index.json": index, "other.safetensors": safetensors("y")})
    assert relative(tmp_path) == ["model.safetensors.index.json", "other.safetensors"]


def test_single_files_are_found_by_name_or_by_their_first_bytes(tmp_path: Path, fixtures_dir: Path) -> None:
    torch_file = (fixtures_dir / "mlp.pth").read_bytes()
    legacy = (fixtures_dir / "legacy.pth").read_bytes()
    tar = (fixtures_dir / "torch_tar.pth").read_bytes()
    listed = {
        "1.pt": b"", "2.pth": b"?", "3.ckpt": b"", "4.safetensors": b"", "5.pth.tar": b"",
        "model.bin": b"", "a": torch_file, "b.tmp": torch_file, "c.bin": legacy, "d": safetensors("w"),
        "e.tar": tar, "f.pkl": b"\x80\x04N.", "g.bin": POINTER,
    }  # fmt: skip
    left_out = {
        "train.bin": bytes(4096), "i.py": b"", "j.json": b"{}", "l.pkl": b"text", ".hidden.pt": b"",
        "h.tar": (fixtures_dir / "archive.tar").read_bytes(),
        "k.npz": (fixtures_dir / "arrays.npz").read_bytes(),
        "m": b"PK\x03\x04",
    }  # fmt: skip
    made(tmp_path, **listed, **left_out)
    assert set(relative(tmp_path)) == set(listed)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    inner = made(tmp_path / "run", **{"a.pt": b""})
    (inner / "again").symlink_to(tmp_path)
    assert relative(tmp_path) == ["run/a.pt"]


def test_a_file_is_its_own_target(tmp_path: Path) -> None:
    assert find_targets(str(tmp_path / "x")) == (str(tmp_path / "x"),)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_a_target(tmp_path: Path) -> None:
    closed = made(tmp_path / "closed")
    closed.chmod(0)
    try:
        assert relative(tmp_path) == ["closed"]
    finally:
        closed.chmod(0o700)


def test_every_fixture_that_a_reader_takes_is_found(fixtures_dir: Path) -> None:
    found = set(relative(fixtures_dir))
    assert {"mlp.pth", "trainer/checkpoint-2", "sharded/model.safetensors.index.json", "dcp", "arrays.pkl"} <= found
    assert not any(name.endswith((".py", ".json.pth.json", ".distcp")) for name in found)
    assert "trainer/checkpoint-2/model.safetensors" not in found


# --- JSON ------------------------------------------------------------------------------------------------


def test_json_becomes_a_tree() -> None:
    nodes = nodes_of({"a": [1, None], "b": {}})
    root = nodes[0]
    assert isinstance(root, Mapping)
    assert [nodes[k] for k in root.keys] == [Value("a"), Value("b")]
    inner = nodes[root.values[0]]
    assert isinstance(inner, Sequence)
    assert [nodes[i] for i in inner.items] == [Value(1), Value(None)]


def test_a_read_needs_no_other_reader_to_be_imported(tmp_path: Path) -> None:
    opened: list[str] = []

    def record(path: str) -> Checkpoint:
        opened.append(Path(path).name)
        return Checkpoint(path, "safetensors", (Value(1),), 0)

    checkpoint = directory.read_path(str(trainer(tmp_path / "checkpoint-1")), DEFAULT, record)
    assert opened == ["model.safetensors"]
    assert checkpoint.format == "directory"
