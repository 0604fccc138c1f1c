"""Repair of what has no checksums of its own, of sets of files, and with a manifest as proof; without torch."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ckpttool.errors import CkpttoolError
from ckpttool.formats import describe
from ckpttool.testing.samples import FILES, FOLDERS, sealed_files, weights
from ckpttool.testing.writers import safetensors_file, sharded_files, torch_file
from ckpttool.testing.zips import placed
from ckpttool.verbs.diff import diff
from ckpttool.verbs.repair import repair
from ckpttool.verbs.seal import seal
from ckpttool.verbs.verify import verify


def saved(folder: Path, data: bytes, suffix: str = ".pth", **wishes: Any) -> dict[str, Any]:
    source, output = folder / f"broken{suffix}", folder / f"mended{suffix.replace('.pkl', '.pth')}"
    source.write_bytes(data)
    found: Any = repair(source, output, force=True, **wishes).json
    assert source.read_bytes() == data
    return dict(found)


def contents(path: Path) -> dict[str, bytes]:
    found = describe(path)
    held = {}
    for entry, tensor in found.tensors():
        assert tensor.storage is not None
        span = found.storages[tensor.storage].span
        assert span is not None
        data = Path(span.source).read_bytes()
        held[entry.key] = data[span.start : span.stop]
    return held


def extent(path: Path, name: str) -> tuple[int, int]:
    span = next(e.span for e in describe(path).extents if e.name == name)
    return span.start, span.stop


# --- torch before 1.6 --------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.pth"
    path.write_bytes(FILES["torch-legacy"]())
    return path


def without(data: bytes, start: int, stop: int) -> bytes:
    return data[:start] + bytes(stop - start) + data[stop:]


def test_the_list_of_storages_follows_from_the_tree(tmp_path: Path, old: Path) -> None:
    data = old.read_bytes()
    _, stop = extent(old, "tree")
    found = saved(tmp_path, without(data, stop - 40, stop - 10))
    assert found["lost"] == []
    assert contents(tmp_path / "mended.pth") == contents(old)


def test_the_facts_about_the_system_are_put_right(tmp_path: Path, old: Path) -> None:
    data = old.read_bytes()
    found = saved(tmp_path, without(data, 24, 60))
    assert found["lost"] == []
    assert contents(tmp_path / "mended.pth") == contents(old)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_lost_tree_is_another_checkpoints(tmp_path: Path, old: Path, share: float) -> None:
    """Its storages have other keys: the order in which both trees mention them says which is which."""
    data = old.read_bytes()
    start, stop = extent(old, "tree")
    at = start + int((stop - start) * share)
    bad = without(data, at, at + 60)
    with pytest.raises(CkpttoolError, match="--like"):
        saved(tmp_path, bad)
    (tmp_path / "good.pth").write_bytes(data)
    found = saved(tmp_path, bad, like=tmp_path / "good.pth")
    before, after = contents(old), contents(tmp_path / "mended.pth")
    assert after.items() <= before.items()
    assert len(after) + len(found["lost"]) == len(before)
    assert len(after) >= len(before) - 2
    assert found["exit_code"] == 1


# --- plain pickles -----------------------------------------------------------------------------------------------


def test_a_pickle_that_ends_early_is_kept_up_to_there(tmp_path: Path) -> None:
    text = pickle.dumps({"epoch": 3, "names": [f"layer {n}" for n in range(900)], "end": "x" * 5000}, 2)
    found = saved(tmp_path, text[:-3000], ".pkl")
    assert found["exit_code"] == 1
    assert [one["key"] for one in found["lost"]] == [found["lost"][0]["key"]]
    again = describe(tmp_path / "mended.pth")
    assert {"epoch", "names", "layer 0", "layer 899"} <= {node.value for node in again.nodes if hasattr(node, "value")}


# --- manifests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "torch-legacy"])
def test_a_manifest_proves_what_no_checksum_does(tmp_path: Path, kind: str) -> None:
    suffix = ".safetensors" if kind == "safetensors" else ".pth"
    data = FILES[kind]()
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(data)
    seal(path)
    span = max((e.span for e in describe(path).extents), key=lambda span: span.nbytes)
    at = span.start + 100
    found = saved(tmp_path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], suffix)
    assert {(one["proof"], one["by"]) for one in found["recovered"]} == {("proved", "manifest")}
    assert len(found["lost"]) == 1
    assert "manifest" in found["lost"][0]["reason"]
    assert "digest-mismatch" in {one["name"] for one in found["damage"]}


def test_a_manifest_proves_a_record_whose_checksum_is_gone(tmp_path: Path) -> None:
    data = FILES["torch-zip"]()
    one = max(placed(data), key=lambda p: p.stop - p.start)
    bad = bytearray(data)
    for start in (one.stop + 4, one.entry + 16):  # in the descriptor and in the directory
        bad[start : start + 4] = b"\x11\x22\x33\x44"
    (tmp_path / "broken.pth").write_bytes(data)
    lost = saved(tmp_path, bytes(bad))["lost"]
    (tmp_path / "broken.pth").write_bytes(data)
    seal(tmp_path / "broken.pth")
    found = saved(tmp_path, bytes(bad))
    assert lost
    assert found["lost"] == []
    assert "manifest" in {one["by"] for one in found["recovered"]}


@pytest.mark.parametrize("renamed", ["new.", ""])
@pytest.mark.parametrize(("suffix", "write"), [(".safetensors", safetensors_file), (".pth", torch_file)])
def test_a_manifest_of_another_content_proves_nothing(tmp_path: Path, suffix: str, write: Any, renamed: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(write(weights(seed=1)))
    seal(path)
    again = {f"{renamed}{k}": v for k, v in weights(seed=2).items()}
    path.write_bytes(write({**again, "one.more": next(iter(again.values()))}))
    found: Any = repair(path, tmp_path / f"out{suffix}").json
    assert found["sound"]
    assert found["lost"] == []
    assert "manifest" not in {one["by"] for one in found["recovered"]}


# --- sets --------------------------------------------------------------------------------------------------------


def shards(folder: Path, *, bins: bool = False) -> tuple[Path, list[Path]]:
    folder.mkdir()
    files = sharded_files(weights(), shards=2)
    if bins:
        halves = [dict(list(weights().items())[:2]), dict(list(weights().items())[2:])]
        names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
        files = {name: torch_file(half) for name, half in zip(names, halves, strict=True)}
        table = ", ".join(f'"{k}": "{n}"' for n, half in zip(names, halves, strict=True) for k in half)
        files["pytorch_model.bin.index.json"] = f'{{"metadata": {{}}, "weight_map": {{{table}}}}}'.encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    members = sorted(folder / name for name in files if not name.endswith(".json"))
    return next(folder / name for name in files if name.endswith(".json")), members


def damaged(member: Path, rng: random.Random, how: str) -> None:
    data = member.read_bytes()
    one = max(placed(data), key=lambda p: p.stop - p.start)
    at = rng.randrange(one.start + 600, one.stop - 600)
    if how == "bit":
        member.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
    elif how == "inserted":
        member.write_bytes(data[:at] + rng.randbytes(200) + data[at:])
    else:
        member.write_bytes(data.replace(b"PK\1\2", b"\0\0\0\0"))


@pytest.mark.parametrize("how", ["bit", "inserted", "directory"])
def test_each_shard_is_healed_for_itself(tmp_path: Path, how: str) -> None:
    index, members = shards(tmp_path / "set", bins=True)
    before = contents(index)
    damaged(members[0], random.Random(how), how)
    found: Any = repair(index, tmp_path / "whole.pth", fix_bit=True).json
    assert found["lost"] == []
    assert {(one["proof"], one["by"]) for one in found["recovered"]} == {("proved", "checksum")}
    assert contents(tmp_path / "whole.pth") == before


def test_a_manifest_proves_shards(tmp_path: Path) -> None:
    index, members = shards(tmp_path / "set")
    seal(tmp_path / "set")
    data = members[0].read_bytes()
    members[0].write_bytes(data[:-8] + bytes(8))
    found: Any = repair(index, tmp_path / "whole.safetensors").json
    assert {(one["proof"], one["by"]) for one in found["recovered"]} == {("proved", "manifest")}
    assert len(found["lost"]) == 1


def test_a_shard_that_lost_its_tree_gets_that_of_its_twin(tmp_path: Path) -> None:
    index, members = shards(tmp_path / "set", bins=True)
    good, _ = shards(tmp_path / "good", bins=True)
    before = contents(index)
    data = members[1].read_bytes()
    members[1].write_bytes(bytes(400) + data[400:])
    found: Any = repair(index, tmp_path / "whole.pth", like=good).json
    assert found["lost"] == []
    assert contents(tmp_path / "whole.pth") == before


# --- another order -----------------------------------------------------------------------------------------------


def test_a_tree_of_another_order_is_matched_by_size(tmp_path: Path) -> None:
    """The same tensors, saved in another order: keys of payloads are numbers in the order of saving."""
    data = torch_file(dict(weights()))
    (tmp_path / "good.pth").write_bytes(torch_file(dict(reversed(weights(seed=9).items()))))
    (tmp_path / "was.pth").write_bytes(data)
    found = saved(tmp_path, bytes(300) + data[300:], like=tmp_path / "good.pth")
    assert found["lost"] == []
    assert contents(tmp_path / "mended.pth") == contents(tmp_path / "was.pth")


def test_what_is_saved_of_a_sealed_file_verifies_clean(tmp_path: Path) -> None:
    files = sealed_files({"model.safetensors": FILES["safetensors"]()})
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    path = tmp_path / "model.safetensors"
    (tmp_path / f"{path.name}.manifest.json").unlink()
    seal(path, inside=True)
    path.write_bytes(path.read_bytes()[:-100])
    repair(path, tmp_path / "out.safetensors")
    found = [f for subject in verify([tmp_path / "out.safetensors"]).subjects for f in subject.findings]
    assert not [f.name for f in found if f.severity == "error"]


# --- distributed -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "step-7"
    path.mkdir()
    for name, data in FOLDERS["dcp"]().items():
        (path / name).write_bytes(data)
    return path


def keys(path: Path) -> set[str]:
    return {entry.key for entry, _ in describe(path).tensors()}


def test_a_folder_without_its_metadata_has_tensors_without_names(tmp_path: Path, folder: Path) -> None:
    good = tmp_path / "good"
    shutil.copytree(folder, good)
    (folder / ".metadata").unlink()
    found: Any = repair(folder, tmp_path / "saved.pth").json
    assert found["exit_code"] == 1
    assert "--like" in " ".join(found["notes"])
    assert all("distcp@" in one["key"] for one in found["recovered"])
    named: Any = repair(folder, tmp_path / "named.pth", like=good).json
    assert named["lost"] == []
    assert keys(tmp_path / "named.pth") == keys(good)
    assert diff(good, tmp_path / "named.pth").exit_code == 0


def test_of_a_data_file_that_is_gone_its_chunks_are_lost(tmp_path: Path, folder: Path) -> None:
    good = tmp_path / "good"
    shutil.copytree(folder, good)
    (folder / "__1_0.distcp").unlink()
    found: Any = repair(folder, tmp_path / "saved.pth").json
    assert found["recovered"]
    assert found["lost"]
    assert {one["proof"] for one in found["recovered"]} == {"proved"}
    assert keys(tmp_path / "saved.pth") <= {f"salvaged.{key}" for key in keys(good)} | keys(good)


def test_a_bit_of_a_chunk_is_turned_back(tmp_path: Path, folder: Path) -> None:
    good = tmp_path / "good"
    shutil.copytree(folder, good)
    span = max((e.span for e in describe(folder).extents if ".distcp" in e.name), key=lambda span: span.nbytes)
    data = bytearray(Path(span.source).read_bytes())
    data[span.start + 77] ^= 32
    Path(span.source).write_bytes(data)
    found: Any = repair(folder, tmp_path / "saved.pth", fix_bit=True).json
    assert found["lost"] == []
    assert diff(good, tmp_path / "saved.pth").exit_code == 0
