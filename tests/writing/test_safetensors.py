"""What is written is what the safetensors library writes, byte for byte; what it cannot hold is listed."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.draft import draft_of
from ckpttool.dtypes import DTYPES, SAFETENSORS
from ckpttool.errors import UsageError
from ckpttool.formats import describe
from ckpttool.testing.plain import Global, Pickled, StateDict, Storage, Tensor, tensor
from ckpttool.testing.samples import weights
from ckpttool.testing.writers import safetensors_file, torch_file, torch_records
from ckpttool.testing.zips import torch_zip
from ckpttool.writing.apply import apply
from ckpttool.writing.safetensors import losses

FRESH = {"format": "pt"}


@pytest.fixture
def library() -> ModuleType:
    pytest.importorskip("torch", reason="torch is not installed")
    found: ModuleType = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    return found


def written(value: Any, folder: Path) -> bytes:
    """The safetensors file of a tree of plain stand-ins."""
    source = folder / "source.pt"
    source.write_bytes(torch_file(value))
    return converted(source)


def converted(source: Path) -> bytes:
    target = source.with_suffix(".safetensors")
    apply(draft_of(describe(source)), target, overwrite=True, verify=True)
    return target.read_bytes()


def lost(value: Any, folder: Path) -> list[tuple[str, str, str]]:
    source = folder / "source.pt"
    source.write_bytes(torch_file(value))
    return [(loss.key, loss.what, loss.kind) for loss in losses(draft_of(describe(source)))]


def header(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])
    found: dict[str, Any] = json.loads(data[8 : 8 + length])
    return found


# --- the bytes ---------------------------------------------------------------------------------------------


def test_every_element_type_in_the_librarys_order(library: ModuleType, torch: Any, tmp_path: Path) -> None:
    names = [name for name in SAFETENSORS.values() if hasattr(torch, name.name)]
    state = {f"{key}.{dtype.name}": torch.ones(2, 3).to(getattr(torch, dtype.name)) for dtype in names for key in "ba"}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), 'é\n"\x7f': torch.ones(1)}
    torch.save(state, tmp_path / "a.pt")
    assert converted(tmp_path / "a.pt") == library.save(state, metadata=FRESH)


def test_packed_pairs_count_twice(library: ModuleType, torch: Any, tmp_path: Path) -> None:
    state = {"x": torch.arange(12, dtype=torch.uint8).reshape(3, 4).view(torch.float4_e2m1fn_x2)}
    torch.save(state, tmp_path / "a.pt")
    data = converted(tmp_path / "a.pt")
    assert data == library.save(state, metadata=FRESH)
    assert header(data)["x"]["shape"] == [3, 8]
    apply(draft_of(describe(tmp_path / "a.safetensors")), tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)["x"]
    assert (back.dtype, back.shape) == (torch.float4_e2m1fn_x2, (3, 4))
    assert back.view(torch.uint8).tolist() == state["x"].view(torch.uint8).tolist()


def test_views_are_written_row_major(library: ModuleType, torch: Any, tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    state = {
        "permuted": base.permute(2, 0, 1), "strided": base[:, ::2, 1], "expanded": torch.ones(1, 3).expand(4, 3),
        "complex": torch.arange(6).to(torch.complex64).reshape(2, 3).t(), "flag": torch.eye(3).bool().t(),
    }  # fmt: skip
    torch.save(state, tmp_path / "a.pt")
    expected = {name: one.clone(memory_format=torch.contiguous_format) for name, one in state.items()}
    assert converted(tmp_path / "a.pt") == library.save(expected, metadata=FRESH)


def test_shared_tensors_are_as_save_model_has_them(library: ModuleType, torch: Any, tmp_path: Path) -> None:
    inner = torch.nn.Linear(3, 3, bias=False)
    model = torch.nn.Sequential(OrderedDict(z=inner, a=torch.nn.Linear(3, 3), m=inner))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    data = converted(tmp_path / "a.pt")
    library.save_model(model, str(tmp_path / "model"), metadata=dict(FRESH))
    expected = (tmp_path / "model").read_bytes()
    assert header(data) == header(expected)
    assert data[-60:] == expected[-60:]
    assert header(data)["__metadata__"] == {"format": "pt", "z.weight": "m.weight"}
    other = torch.nn.Sequential(OrderedDict(z=inner, a=torch.nn.Linear(3, 3), m=inner))
    assert [list(some) for some in library.load_model(other, str(tmp_path / "a.safetensors"))] == [[], []]


def test_shared_names_come_back(torch: Any, tmp_path: Path) -> None:
    shared = torch.randn(3, 3)
    torch.save({"z": shared, "a": torch.ones(2), "m": shared}, tmp_path / "a.pt")
    converted(tmp_path / "a.pt")
    apply(draft_of(describe(tmp_path / "a.safetensors")), tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert set(back) == {"z", "a", "m"}
    assert back["z"].data_ptr() == back["m"].data_ptr()
    assert torch.equal(back["z"], shared)


def test_the_same_bytes_every_time_without_torch(tmp_path: Path) -> None:
    data = written(weights(), tmp_path)
    assert data == written(weights(), tmp_path)
    assert data == safetensors_file(weights(), FRESH)


def test_metadata_of_a_safetensors_file_is_kept(tmp_path: Path) -> None:
    metadata = {"note": "naïve \n", "a": "1"}
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(weights(), metadata))
    apply(draft_of(describe(tmp_path / "a.safetensors")), tmp_path / "b.safetensors")
    assert describe(tmp_path / "b.safetensors").metadata["metadata"] == metadata
    # Beside the metadata, which the library writes in no order of its own, the bytes are the same.
    assert list(header((tmp_path / "b.safetensors").read_bytes())["__metadata__"]) == ["a", "note"]


def test_big_endian_storages_are_turned(tmp_path: Path) -> None:
    value = {"w": tensor((2, 2), struct.pack(">4f", 1, 2, 3, 4)), "i": tensor((2,), b"\1\2", "uint8")}
    records = torch_records(*Pickled.dumps(value))
    big = [replace(one, data=b"big") if one.name.endswith("byteorder") else one for one in records]
    (tmp_path / "a.pt").write_bytes(torch_zip(big))
    assert describe(tmp_path / "a.pt").storages[0].swapped
    assert converted(tmp_path / "a.pt")[-18:] == struct.pack("<4f", 1, 2, 3, 4) + b"\1\2"


# --- what it cannot hold -----------------------------------------------------------------------------------


def test_a_plain_table_of_tensors_loses_nothing(tmp_path: Path) -> None:
    assert lost({"a": tensor((1,), bytes(4)), "b": tensor((1,), bytes(4))}, tmp_path) == []


def test_everything_else_is_listed(tmp_path: Path) -> None:
    storage = Storage(bytes(64), DTYPES["float32"], "cuda:0")
    state = StateDict(w=Tensor(storage, (2, 2), (1, 2), 0, True))
    state.state = {"_metadata": OrderedDict()}
    value = {
        "epoch": 3, "lr": [0.1, None], "empty": {}, "type": Global("torch", "float32"), "model": state,
        "wide": tensor((1,), bytes(16), "complex128"), "__metadata__": tensor((1,), bytes(4)),
        7: tensor((1,), bytes(4)),
    }  # fmt: skip
    assert lost(value, tmp_path) == [
        ("", "types of 1 key", "form"),
        ("lr", "list", "form"),
        ("model", "OrderedDict", "form"),
        ("model", "_metadata", "form"),
        ("", "nesting of 2 containers", "form"),
        ("epoch", "int", "content"),
        ("lr.0", "float", "content"),
        ("lr.1", "None", "content"),
        ("empty", "empty dict", "content"),
        ("type", "name torch.float32", "content"),
        ("model.w", "requires_grad", "form"),
        ("model.w", "device cuda:0", "form"),
        ("model.w", "strides", "form"),
        ("wide", "complex128 tensor", "content"),
        ("__metadata__", "float32 tensor", "content"),
        ("model.w", "rest of its storage", "form"),
        ("", "order of keys", "form"),
    ]  # fmt: skip


def test_views_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    storage = Storage(struct.pack("<4f", 1, 2, 3, 4), DTYPES["float32"])
    value = {"all": Tensor(storage, (4,), (1,)), "half": Tensor(storage, (2,), (1,), 2)}
    data = written(value, tmp_path)
    assert data[-24:] == struct.pack("<6f", 1, 2, 3, 4, 3, 4)
    assert lost(value, tmp_path) == [("all", "shared storage", "form"), ("half", "shared storage", "form")]


@pytest.mark.parametrize("conjugate", [True, False])
def test_lazily_conjugated_views_are_not_carried(torch: Any, tmp_path: Path, conjugate: bool) -> None:
    number = torch.tensor([1 + 2j]).conj()
    torch.save({"c": number if conjugate else number.imag}, tmp_path / "a.pt")
    assert [loss.key for loss in losses(draft_of(describe(tmp_path / "a.pt"))) if loss.kind == "content"] == ["c"]


def test_sparse_and_meta_tensors_are_not_carried(torch: Any, tmp_path: Path) -> None:
    value = {"s": torch.eye(3).to_sparse(), "m": torch.empty(2, device="meta"), "d": torch.ones(2)}
    torch.save(value, tmp_path / "a.pt")
    found = [(x.key, x.what) for x in losses(draft_of(describe(tmp_path / "a.pt"))) if x.kind == "content"]
    assert found == [("s", "sparse_coo tensor"), ("m", "meta tensor")]


@pytest.mark.parametrize("value", [{"a": {"b": 1}, "a.b": 2}, {"0": 1, 0: 2}, {"x": {"y.z": 1}, "x.y": {"z": 2}}])
def test_two_tensors_of_one_name_are_refused(value: dict[Any, Any], tmp_path: Path) -> None:
    def filled(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: filled(below) for key, below in tree.items()}
        return tensor((1,), bytes(4))

    with pytest.raises(UsageError, match="two tensors of the tree would both be named"):
        written(filled(value), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["source.pt"]


def test_a_tensor_alone_gets_a_name(tmp_path: Path) -> None:
    assert list(header(written(tensor((1,), bytes(4)), tmp_path))) == ["__metadata__", "tensor"]


def test_large_views_are_gathered_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(bytes(range(240)), DTYPES["float32"])
    value = {"v": Tensor(storage, (5, 4, 3), (1, 5, 20)), "row": Tensor(storage, (7,), (3,), 2)}
    whole = written(value, tmp_path)
    for piece in (1, 8, 13, 50):
        monkeypatch.setattr("ckpttool.writing.dense.PIECE", piece)
        assert written(value, tmp_path) == whole


def test_a_view_that_repeats_without_end_is_not_carried(tmp_path: Path) -> None:
    storage = Storage(bytes(32), DTYPES["float32"])
    value = {"v": Tensor(storage, (1 << 30, 8), (0, 1)), "w": tensor((1,), bytes(4))}
    assert lost(value, tmp_path) == [("v", "float32 tensor", "content")]


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_reads_like_a_pickle(length: int, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors_file({"w": tensor((1,), bytes(4))}, {"note": ""}))
    bare = len(json.dumps(header((tmp_path / "a.safetensors").read_bytes()), separators=(",", ":")))
    metadata = {"note": "x" * (length - bare)}
    (tmp_path / "a.safetensors").write_bytes(safetensors_file({"w": tensor((1,), bytes(4))}, metadata))
    data = converted(tmp_path / "a.safetensors")
    assert data[:2] == bytes([0x80, length >> 8])
    assert describe(tmp_path / "a.safetensors").damage == ()
