"""Shards as huggingface_hub splits, names and indexes them; published whole or not at all."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.draft import draft_of
from ckpttool.errors import UsageError, WriteFailed
from ckpttool.formats import describe
from ckpttool.testing.plain import Tensor, tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.diff import diff
from ckpttool.writing.apply import Written, apply
from ckpttool.writing.safetensors import REORDERED
from ckpttool.writing.sharded import plan, size_of


def floats(count: int, first: float = 0) -> Tensor:
    return tensor((count,), struct.pack(f"<{count}f", *(first + i for i in range(count))))


def source(folder: Path, value: Any) -> Path:
    path = folder / "source.pt"
    path.write_bytes(torch_file(value))
    return path


def sharded(path: Path, target: Path, **wishes: Any) -> Written:
    return apply(draft_of(describe(path)), target, verify=True, **wishes)


def kinds(one: Path, other: Path) -> list[str]:
    changes: Any = diff(one, other).data["changes"]
    return [change["kind"] for change in changes]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


STATE = {"a": floats(10), "b": floats(30, 100), "c": floats(5, 200), "d": floats(5, 300), "e": floats(9, 400)}


def test_shards_are_filled_in_the_order_of_keys(tmp_path: Path) -> None:
    made = plan(draft_of(describe(source(tmp_path, STATE))), max_shard_size=80)
    assert [(shard.name, shard.keys) for shard in made.shards] == [
        ("model-00001-of-00003.safetensors", ("b",)),
        ("model-00002-of-00003.safetensors", ("a", "c", "d")),
        ("model-00003-of-00003.safetensors", ("e",)),
    ]


@pytest.mark.parametrize("kind", ["sharded", "sharded-bin"])
def test_what_is_written_is_read_as_the_same(tmp_path: Path, kind: str) -> None:
    path = source(tmp_path, STATE)
    written = sharded(path, tmp_path / "out", format=kind, max_shard_size=80)
    assert sorted(written.files) == sorted(map(str, (tmp_path / "out").iterdir()))
    assert diff(path, tmp_path / "out").data["changes"] == []
    assert written.not_carried[-1:] == (REORDERED,)
    index = json.loads(Path(written.files[-1]).read_bytes())
    assert index["metadata"] == {"total_size": 4 * 59}
    assert set(index["weight_map"]) == set(STATE)
    sharded(tmp_path / "out", tmp_path / "back.pt")
    assert kinds(path, tmp_path / "back.pt") == ["reordered"]


def test_one_file_has_no_index(tmp_path: Path) -> None:
    sharded(source(tmp_path, STATE), tmp_path / "out")
    assert names(tmp_path / "out") == ["model.safetensors"]
    sharded(source(tmp_path, STATE), tmp_path / "bin", format="sharded-bin")
    assert names(tmp_path / "bin") == ["pytorch_model.bin"]


def test_beside_an_index(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = source(tmp_path, STATE)
    sharded(path, tmp_path / "run" / "ema.bin.index.json", max_shard_size=80)
    assert names(tmp_path / "run") == [
        "ema-00001-of-00003.bin", "ema-00002-of-00003.bin", "ema-00003-of-00003.bin", "ema.bin.index.json",
    ]  # fmt: skip
    assert diff(path, tmp_path / "run" / "ema.bin.index.json").data["identical"] is True


def test_shards_are_never_replaced(tmp_path: Path) -> None:
    path = source(tmp_path, STATE)
    sharded(path, tmp_path / "out")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ema-00003-of-00003.safetensors").touch()
    before = names(tmp_path / "run"), names(tmp_path / "out")
    for target in (tmp_path / "out", tmp_path / "run" / "ema.safetensors.index.json"):
        with pytest.raises(WriteFailed, match="never replaced"):
            sharded(path, target, max_shard_size=80, overwrite=True)
    assert (names(tmp_path / "run"), names(tmp_path / "out")) == before


def test_a_name_that_is_taken_meanwhile_takes_the_others_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source(tmp_path, STATE)
    (tmp_path / "run").mkdir()
    late = tmp_path / "run" / "x-00002-of-00003.safetensors"
    original = Path.exists
    asked: list[Path] = []

    def exists(self: Path, **wishes: Any) -> bool:
        found = original(self, **wishes)
        if self == late and not found:
            asked.append(self)
            if len(asked) == 2:  # it was free when the first and the second look were taken
                late.write_bytes(b"someone else")
        return found

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(WriteFailed, match="exists already"):
        sharded(path, tmp_path / "run" / "x.safetensors.index.json", max_shard_size=80)
    assert names(tmp_path / "run") == [late.name]
    assert late.read_bytes() == b"someone else"


def test_shared_tensors_stay_together_or_are_recorded(tmp_path: Path) -> None:
    shared = floats(10)
    state = {"a": shared, "b": floats(15), "c": shared}
    path = source(tmp_path, state)
    sharded(path, tmp_path / "bin", format="sharded-bin", max_shard_size=60)
    index = json.loads((tmp_path / "bin" / "pytorch_model.bin.index.json").read_bytes())
    assert index["weight_map"]["a"] == index["weight_map"]["c"]
    assert index["metadata"] == {"total_size": 100}
    sharded(path, tmp_path / "st", max_shard_size=60)
    index = json.loads((tmp_path / "st" / "model.safetensors.index.json").read_bytes())
    assert index["metadata"] == {"total_size": 100, "c": "a"}
    for kind in ("bin", "st"):
        sharded(tmp_path / kind, tmp_path / f"{kind}.pt")
        assert set(kinds(path, tmp_path / f"{kind}.pt")) <= {"reordered"}


@pytest.mark.parametrize(
    ("text", "nbytes"), [("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("100kb", 100_000), ("2TB", 2 * 10**12), ("7", 7)]
)
def test_sizes(text: str, nbytes: int) -> None:
    assert size_of(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "5GiB", "1e400", "nan", "5 apples"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size of a shard"):
        size_of(text)


# --- the library as oracle -----------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    return pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("most", [1, 40, 100, 10_000])
def test_files_and_index_are_the_librarys(hub: Any, torch: Any, tmp_path: Path, safe: bool, most: int) -> None:
    shared = torch.randn(10)
    state = {
        "z": shared, "b": torch.randn(3, 5).half(), "a": shared, "big": torch.randn(64), "i": torch.tensor(3),
        "é": torch.ones(2, dtype=torch.bool), "t": torch.randn(4, 2).t(), "n": torch.randn(7),
    }  # fmt: skip
    torch.save(state, tmp_path / "source.pt")
    (tmp_path / "theirs").mkdir()
    hub.save_torch_state_dict(dict(state), tmp_path / "theirs", max_shard_size=most, safe_serialization=safe)
    kind = "sharded" if safe else "sharded-bin"
    sharded(tmp_path / "source.pt", tmp_path / "ours", format=kind, max_shard_size=most)
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    for name in names(tmp_path / "ours"):
        ours, theirs = (tmp_path / "ours" / name).read_bytes(), (tmp_path / "theirs" / name).read_bytes()
        if name.endswith(".index.json") or (safe and b"__metadata__" in theirs and most < 10_000):
            assert ours == theirs
        else:
            assert diff(tmp_path / "ours" / name, tmp_path / "theirs" / name).data["identical"] is True


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 60))
def test_any_sizes_are_split_as_the_library_splits_them(sizes: list[int], most: int) -> None:
    base = pytest.importorskip("huggingface_hub.serialization._base", reason="huggingface_hub is not installed")
    from ckpttool.dtypes import BYTE
    from ckpttool.model import Tensor as Described
    from ckpttool.writing.flat import Named
    from ckpttool.writing.sharded import split

    state = {f"k{i}": size for i, size in enumerate(sizes)}
    theirs = base.split_state_dict_into_shards_factory(
        state, get_storage_size=lambda n: n, filename_pattern="m{suffix}", max_shard_size=most
    )
    items = [Named(name, Described(BYTE, (size,), (1,), 0, i), i) for i, (name, size) in enumerate(state.items())]
    ours = [[item.name for item in shard] for shard in split(items, state, most)]
    assert ours == list(theirs.filename_to_tensors.values())


def test_the_index_gets_its_name_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    link = os.link

    def noted(old: Path, new: Path) -> None:
        named.append(Path(new).name)
        link(old, new)

    monkeypatch.setattr(os, "link", noted)
    written = sharded(source(tmp_path, STATE), tmp_path / "x.safetensors.index.json", max_shard_size=80)
    assert named == [Path(name).name for name in written.files]
    assert named[-1] == "x.safetensors.index.json"
