"""Objects in memory are described as their saved files are, and their bytes are not copied."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.errors import UsageError
from ckpttool.formats import describe_source
from ckpttool.memory import Buffers, describe_state
from ckpttool.model import Mapping, Tensor
from ckpttool.source import Memory
from ckpttool.testing import strategies
from ckpttool.testing.oracle import differences

PIECES = st.lists(st.binary(max_size=9), max_size=5)


def saved(value: Any) -> bytes:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, file)
    return file.getvalue()


# --- the source ------------------------------------------------------------------------------------------------


@given(PIECES, st.integers(0, 50), st.integers(-1, 50))
def test_buffers_read_like_one_run_of_bytes(pieces: list[bytes], start: int, nbytes: int) -> None:
    whole, source = b"".join(pieces), Buffers([memoryview(piece) for piece in pieces])
    wanted = whole[start : start + max(0, nbytes)]
    assert source.size == len(whole)
    assert source.read(start, nbytes) == wanted
    assert bytes(source.window(start, start + max(0, nbytes))) == wanted
    space = bytearray(b"#" * max(0, nbytes))
    assert source.readinto(start, memoryview(space)) == len(wanted)
    assert space[: len(wanted)] == wanted
    assert not source.changed()


def test_a_window_of_one_run_is_not_a_copy() -> None:
    space = bytearray(b"0123")
    window = Buffers([memoryview(b"head"), memoryview(space)]).window(4, 8)
    space[0] = ord("x")
    assert bytes(window) == b"x123"


# --- plain objects ---------------------------------------------------------------------------------------------


def test_what_has_no_tensors_needs_no_torch() -> None:
    checkpoint, _ = describe_state({"epoch": 3, "losses": [0.5, 0.25]}, "plain")
    assert [entry.key for entry in checkpoint.entries()] == ["epoch", "losses.0", "losses.1"]
    assert checkpoint.format == "memory"
    assert "torch" in sys.modules or not checkpoint.storages


def test_large_byte_strings_stay_where_they_are() -> None:
    value = {"blob": b"\x80" + bytes(200_000)}
    checkpoint, source = describe_state(value, "plain")
    data = describe_source(Memory(saved(value))) if "torch" in sys.modules else checkpoint
    assert [type(entry.node) for entry in checkpoint.entries()] == [type(e.node) for e in data.entries()]
    assert source.size > 200_000


def test_what_cannot_be_saved_is_named() -> None:
    with pytest.raises(UsageError, match=r"state a – holds what cannot be saved: .*lambda"):
        describe_state({"schedule": lambda step: step}, "state a")


def test_objects_with_a_state_stand_for_it() -> None:
    class Counter:
        def state_dict(self) -> dict[str, int]:
            return {"count": 7}

    alone, _ = describe_state(Counter(), "a")
    within, _ = describe_state({"counter": Counter(), "epoch": 1}, "b")
    assert [entry.key for entry in alone.entries()] == ["count"]
    assert [entry.key for entry in within.entries()] == ["counter.count", "epoch"]


# --- tensors ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("torch")
@given(st.data())
def test_objects_are_described_as_their_saved_files(data: st.DataObject) -> None:
    value = data.draw(strategies.trees() | strategies.state_dicts() | strategies.checkpoints())
    checkpoint, source = describe_state(value, "state")
    assert differences(checkpoint, source, value) == []
    from_file = describe_source(Memory(saved(value)))
    assert repr(checkpoint.nodes) == repr(from_file.nodes)
    assert [(s.dtype, s.nbytes) for s in checkpoint.storages] == [(s.dtype, s.nbytes) for s in from_file.storages]


@pytest.mark.usefixtures("torch")
@given(st.data())
def test_so_are_optimizers(data: st.DataObject) -> None:
    optimizer = data.draw(strategies.optimizers())
    checkpoint, source = describe_state(optimizer, "state")
    assert differences(checkpoint, source, optimizer.state_dict()) == []


def test_a_module_is_its_state_dict(torch: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    checkpoint, source = describe_state(module, "module")
    assert differences(checkpoint, source, module.state_dict()) == []
    assert checkpoint.root is not None
    root = checkpoint.nodes[checkpoint.root]
    assert isinstance(root, Mapping)
    assert root.state is not None  # its _metadata


def test_bytes_on_the_cpu_are_the_tensors_own(torch: Any) -> None:
    weight = torch.zeros(4)
    checkpoint, source = describe_state({"w": weight}, "state")
    span = checkpoint.storages[0].span
    assert span is not None
    weight[0] = 1.0
    assert source.read(span.start, 4) == b"\0\0\x80?"


def test_views_and_ties_share_their_storage(torch: Any) -> None:
    base = torch.arange(12.0)
    value = {"base": base, "row": base[3:6], "columns": base.view(3, 4).t(), "bits": base.view(torch.int32)}
    value["parameter"] = torch.nn.Parameter(base)
    value["same memory"] = torch.from_numpy(base.numpy())
    checkpoint, _ = describe_state(value, "state")
    tensors = {entry.key: tensor for entry, tensor in checkpoint.tensors()}
    assert {tensor.storage for tensor in tensors.values()} == {0}
    assert (tensors["row"].offset, tensors["columns"].stride) == (3, (1, 4))
    assert tensors["bits"].dtype.name == "int32"
    assert tensors["parameter"].requires_grad


@pytest.mark.filterwarnings("ignore:.*")
def test_other_kinds_of_tensors_keep_their_kind(torch: Any) -> None:
    eye = torch.eye(3)
    value = {
        "coo": eye.to_sparse(),
        "csr": eye.to_sparse_csr(),
        "meta": torch.empty(3, device="meta"),
        "quantized": torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([eye, eye]),
    }
    checkpoint, _ = describe_state(value, "state")
    layouts = {entry.key: node.layout for entry in checkpoint.entries() if isinstance(node := entry.node, Tensor)}
    assert layouts == {
        "coo": "sparse_coo",
        "csr": "sparse_csr",
        "meta": "meta",
        "quantized": "quantized",
        "nested": "nested",
    }
    assert repr(checkpoint.nodes) == repr(describe_source(Memory(saved(value))).nodes)


def test_names_differ_where_none_is_given() -> None:
    assert describe_state({"a": 1})[1].name != describe_state({"a": 1})[1].name
