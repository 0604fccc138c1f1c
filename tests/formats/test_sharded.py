"""Indexes of shards: what is read is the whole model, and every disagreement has a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import describe, sharded
from ckpttool.formats.natural import natural
from ckpttool.model import Checkpoint, Mapping, Value

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(*names: str) -> bytes:
    """A safetensors file with a tensor of four bytes under each name."""
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(4 * len(names))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ONE).write_bytes(shard("a", "b"))
    (tmp_path / TWO).write_bytes(shard("c"))
    write_index(tmp_path, {"a": ONE, "b": ONE, "c": TWO}, total_size=12)
    return tmp_path


def write_index(folder: Path, weight_map: Any, **metadata: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))


def read(folder: Path) -> Checkpoint:
    return describe(folder / INDEX)


def found(folder: Path) -> list[tuple[str, str]]:
    return [(damage.rule, damage.where) for damage in read(folder).damage]


def keys(checkpoint: Checkpoint) -> list[str]:
    return [entry.key for entry, _ in checkpoint.tensors()]


def test_a_sound_set_is_one_checkpoint(folder: Path) -> None:
    checkpoint = read(folder)
    assert checkpoint.format == "sharded"
    assert checkpoint.damage == ()
    assert keys(checkpoint) == ["a", "b", "c"]
    assert checkpoint.files == tuple(str(folder / name) for name in (INDEX, ONE, TWO))
    assert checkpoint.nbytes == sum(path.stat().st_size for path in folder.iterdir())


def test_every_storage_names_an_extent_of_its_own_file(folder: Path) -> None:
    checkpoint = read(folder)
    extents = {extent.name: extent for extent in checkpoint.extents}
    assert len(extents) == len(checkpoint.extents)
    for storage in checkpoint.storages:
        assert storage.span is not None
        assert extents[storage.record].span == storage.span
    assert checkpoint.storages[2].record == f"{TWO}: c"


def test_a_missing_shard_does_not_hide_the_rest(folder: Path) -> None:
    (folder / ONE).unlink()
    checkpoint = read(folder)
    assert [(d.rule, d.where, d.facts) for d in checkpoint.damage] == [("missing-shard", ONE, {"tensors": 2})]
    assert keys(checkpoint) == ["c"]


def test_a_link_to_nowhere_is_a_missing_shard(folder: Path) -> None:
    (folder / ONE).unlink()
    (folder / ONE).symlink_to(folder / "blob")
    (damage,) = read(folder).damage
    assert damage.rule == "missing-shard"
    assert "leads nowhere" in damage.message


def test_a_folder_in_a_shards_place_is_an_unreadable_part(folder: Path) -> None:
    (folder / TWO).unlink()
    (folder / TWO).mkdir()
    assert found(folder) == [("unreadable-part", TWO)]


def test_damage_of_a_shard_keeps_its_rule(folder: Path) -> None:
    data = shard("a", "b")
    (folder / ONE).write_bytes(data[:-1])
    assert found(folder) == [("truncated", f"{ONE}: byte {len(data) - 1}")]
    assert keys(read(folder)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n", "Git LFS"),
        (shard("a", "b")[:20], "no tensor can be found in it"),
    ],
)
def test_a_shard_that_is_no_checkpoint(folder: Path, content: bytes, said: str) -> None:
    (folder / ONE).write_bytes(content)
    checkpoint = read(folder)
    damage = [d for d in checkpoint.damage if d.rule == "shard-damaged"]
    assert [d.where for d in damage] == [ONE]
    assert said in damage[0].message
    assert keys(checkpoint) == ["c"]
    assert "key-not-in-shard" not in {d.rule for d in checkpoint.damage}


def test_keys_that_the_shard_lacks(folder: Path) -> None:
    write_index(folder, {"a": ONE, "b": ONE, "c": TWO, "d": TWO})
    (damage,) = read(folder).damage
    assert (damage.rule, damage.where, damage.facts) == ("key-not-in-shard", TWO, {"count": 1, "keys": ["d"]})


def test_keys_that_the_index_lacks(folder: Path) -> None:
    write_index(folder, {"a": ONE, "c": TWO})
    assert found(folder) == [("key-not-in-index", ONE)]
    assert keys(read(folder)) == ["a", "b", "c"]


def test_a_key_in_two_shards_is_the_one_that_the_index_names(folder: Path) -> None:
    (folder / TWO).write_bytes(shard("a", "c"))
    write_index(folder, {"a": TWO, "b": ONE, "c": TWO})
    checkpoint = read(folder)
    assert {d.rule: d.where for d in checkpoint.damage} == {"duplicate-shard-key": TWO, "key-not-in-index": ONE} or {
        d.rule for d in checkpoint.damage
    } == {"duplicate-shard-key"}
    assert sorted(keys(checkpoint)) == ["a", "b", "c"]
    place = next(tensor for entry, tensor in checkpoint.tensors() if entry.key == "a")
    assert place.storage is not None
    assert checkpoint.storages[place.storage].record == f"{TWO}: a"


@pytest.mark.parametrize("total", [12, 12.0, "12", None, True, "much"])
def test_sizes_that_are_right_or_say_nothing(folder: Path, total: Any) -> None:
    write_index(folder, {"a": ONE, "b": ONE, "c": TWO}, total_size=total)
    assert found(folder) == []


def test_a_total_that_adds_up_file_sizes(folder: Path) -> None:
    files = sum((folder / name).stat().st_size for name in (ONE, TWO))
    write_index(folder, {"a": ONE, "b": ONE, "c": TWO}, total_size=files)
    (damage,) = read(folder).damage
    assert (damage.rule, damage.facts) == ("total-size", {"recorded": files, "tensors": 12, "files": files})
    assert "sum of the file sizes instead" in damage.message


def test_a_wrong_total_is_not_judged_while_a_shard_is_missing(folder: Path) -> None:
    write_index(folder, {"a": ONE, "b": ONE, "c": TWO}, total_size=999)
    assert found(folder) == [("total-size", "metadata.total_size")]
    (folder / TWO).unlink()
    assert found(folder) == [("missing-shard", TWO)]


def test_ties_may_be_counted_once(fixtures_dir: Path) -> None:
    checkpoint = describe(fixtures_dir / "sharded_bin" / "pytorch_model.bin.index.json")
    assert checkpoint.damage == ()
    assert len(keys(checkpoint)) > len(checkpoint.storages)


def rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {k: new if v == old else v for k, v in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))


def test_names_that_count_wrong(folder: Path) -> None:
    rename(folder, TWO, "model-00002-of-00003.safetensors")
    assert [rule for rule, _ in found(folder)] == ["shard-count"]
    rename(folder, ONE, "model-00001-of-00003.safetensors")
    (damage,) = read(folder).damage
    assert damage.facts == {"needs": 3, "have": 2, "missing": [3]}


def test_numbers_may_begin_at_zero(folder: Path) -> None:
    rename(folder, ONE, "model-00000-of-00002.safetensors")
    rename(folder, TWO, "model-00001-of-00002.safetensors")
    assert found(folder) == []


def test_a_stray_shard(folder: Path) -> None:
    (folder / "model-00009-of-00002.safetensors").write_bytes(shard("z"))
    (folder / "other-00001-of-00002.safetensors").write_bytes(shard("z"))
    assert found(folder) == [("unreferenced-shard", "model-00009-of-00002.safetensors")]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.bin", "a/b.bin", "..", ".", "", "a\\b", "C:x", "a\0b"])
def test_a_path_out_of_the_folder_is_never_opened(folder: Path, name: str) -> None:
    opened: list[str] = []

    def watch(path: str) -> Checkpoint:
        opened.append(Path(path).name)
        return describe(path)

    write_index(folder, {"a": ONE, "b": ONE, "c": TWO, "x": name})
    from ckpttool.limits import DEFAULT

    checkpoint = sharded.read_path(str(folder / INDEX), DEFAULT, watch)
    assert [d.rule for d in checkpoint.damage] == ["shard-path"]
    assert opened == [ONE, TWO]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", ["index-malformed"]),
        ("{", ["index-malformed"]),
        ("[]", ["index-malformed"]),
        ("{}", ["index-malformed"]),
        ('{"weight_map": []}', ["index-malformed"]),
        ('{"weight_map": {"a": 1}}', ["index-malformed"]),
        ('{"weight_map": {"a": null, "b": {}}}', ["index-malformed"]),
        ("[" * 100_000, ["index-malformed"]),
        (f'{{"weight_map": {{"a": "{ONE}", "b": "{ONE}", "b": "{ONE}", "c": "{TWO}"}}}}', ["index-malformed"]),
    ],
)
def test_an_index_that_cannot_be_used(folder: Path, text: str, rules: list[str]) -> None:
    (folder / INDEX).write_text(text)
    assert [rule for rule, _ in found(folder)] == rules


@given(text=st.text() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(json.dumps))
def test_any_index_has_an_answer(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / INDEX
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert describe(path).format == "sharded"


def test_sniff(folder: Path) -> None:
    assert sharded.sniff_path(str(folder / INDEX))
    assert not sharded.sniff_path(str(folder / ONE))
    assert not sharded.sniff_path(str(folder / "no.index.json"))
    assert not sharded.sniff_path(str(folder))


def test_many_shards_take_linear_time(tmp_path: Path) -> None:
    count = 200
    names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(shard(*(f"{i}.{j}" for j in range(50))))
    write_index(tmp_path, {f"{i}.{j}": name for i, name in enumerate(names) for j in range(50)})
    checkpoint = read(tmp_path)
    assert checkpoint.damage == ()
    assert len(keys(checkpoint)) == 50 * count


def test_natural_order() -> None:
    assert sorted(["step-10", "step-9", "a", "step-09b"], key=natural) == ["a", "step-9", "step-09b", "step-10"]
    assert natural("9" * 5000)


# --- real files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["sharded/model.safetensors.index.json", "sharded_bin/pytorch_model.bin.index.json"])
def test_real_sets_are_sound(fixtures_dir: Path, index: str) -> None:
    checkpoint = describe(fixtures_dir / index)
    assert checkpoint.damage == ()
    listed = json.loads((fixtures_dir / index).read_text())["weight_map"]
    assert set(keys(checkpoint)) >= set(listed)


def test_a_real_set_holds_what_its_library_reads(fixtures_dir: Path, bytes_of: Callable[[Checkpoint], Any]) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    theirs = {}
    for path in sorted((fixtures_dir / "sharded").glob("*.safetensors")):
        theirs.update({k: bytes(v["data"]) for k, v in library.deserialize(path.read_bytes())})
    assert bytes_of(describe(fixtures_dir / "sharded" / INDEX)) == theirs


@pytest.fixture
def bytes_of() -> Callable[[Checkpoint], dict[str, bytes]]:
    def read_all(checkpoint: Checkpoint) -> dict[str, bytes]:
        content = {}
        for entry, tensor in checkpoint.tensors():
            assert tensor.storage is not None
            span = checkpoint.storages[tensor.storage].span
            assert span is not None
            content[entry.key] = Path(span.source).read_bytes()[span.start : span.stop]
        return content

    return read_all


def test_the_root_keeps_its_keys_as_values(folder: Path) -> None:
    checkpoint = read(folder)
    assert checkpoint.root is not None
    root = checkpoint.nodes[checkpoint.root]
    assert isinstance(root, Mapping)
    assert [checkpoint.nodes[k] for k in root.keys] == [Value("a"), Value("b"), Value("c")]
