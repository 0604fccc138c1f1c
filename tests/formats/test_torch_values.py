"""What torch's rebuild calls mean, against torch itself and with arguments that it never writes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.formats import describe, describe_source
from ckpttool.formats.pickle_terms import NOT_MINE
from ckpttool.formats.stack import CallOf, DictOf, ListOf, Named, StorageRef, TensorOf
from ckpttool.formats.stand_ins import sizes, tensors_in
from ckpttool.formats.torch_values import TorchValues
from ckpttool.model import Checkpoint, Tensor
from ckpttool.source import Memory

FLOAT = Named("torch", "FloatStorage", 0)


def values() -> tuple[TorchValues, StorageRef]:
    found = TorchValues()
    ref = found.persistent(("storage", FLOAT, "0", "cuda:1", 6))
    assert type(ref) is StorageRef
    return found, ref


def call(found: TorchValues, name: str, *args: Any, module: str = "torch._utils") -> Any:
    return found.reducers[module, name](args)


def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {entry.key: node for entry, node in checkpoint.tensors()}


def test_a_persistent_id_declares_a_storage_once() -> None:
    found, ref = values()
    again = found.persistent(("storage", FLOAT, "0", "cuda:1", 6))
    assert (ref.index, again.index, len(found.storages)) == (0, 0, 1)
    assert (found.storages[0].nbytes, found.storages[0].dtype.name, found.storages[0].device) == (
        24,
        "float32",
        "cuda:1",
    )
    assert found.problems == []


@pytest.mark.parametrize(
    ("pid", "rule"),
    [
        ("text", "persistent-id"),
        (("storage",), "persistent-id"),
        (("module", FLOAT, "file", "source"), "persistent-id"),
        (("storage", FLOAT, "0", "cpu", -1), "storage-declaration"),
        (("storage", FLOAT, "0", "cpu", 1 << 62), "storage-declaration"),
        (("storage", FLOAT, "0", "cpu", 1.5), "storage-declaration"),
        (("storage", FLOAT, "0", "cpu", True), "storage-declaration"),
        (("storage", FLOAT, None, "cpu", 1), "storage-declaration"),
        (("storage", FLOAT, "0", None, 1), "storage-declaration"),
        (("storage", Named("os", "FloatStorage", 0), "0", "cpu", 1), "storage-class"),
        (("storage", Named("torch", "NoStorage", 0), "0", "cpu", 1), "storage-class"),
        (("storage", "FloatStorage", "0", "cpu", 1), "storage-class"),
    ],
)
def test_ids_that_torch_never_writes(pid: Any, rule: str) -> None:
    found = TorchValues()
    assert found.persistent(pid) is NOT_MINE
    assert [p.rule for p in found.problems] == [rule]


def test_two_declarations_of_one_storage_conflict() -> None:
    found, _ = values()
    found.persistent(("storage", FLOAT, "0", "cpu", 7))
    found.persistent(("storage", Named("torch", "HalfStorage", 0), "0", "cpu", 6))
    assert [p.rule for p in found.problems] == ["storage-conflict"] * 2


def test_class_source_belongs_to_old_files_only() -> None:
    pid = ("module", FLOAT, "nets.py", "class Net: ...")
    assert TorchValues(modules=True).persistent(pid) is FLOAT
    assert TorchValues().persistent(pid) is NOT_MINE


def test_the_three_spellings_of_a_strided_tensor() -> None:
    found, ref = values()
    hooks = DictOf("OrderedDict")
    plain = call(found, "_rebuild_tensor_v2", ref, 1, (2, 2), (2, 1), True, hooks)
    assert type(plain) is Tensor
    assert (plain.shape, plain.stride, plain.offset, plain.storage, plain.requires_grad) == ((2, 2), (2, 1), 1, 0, True)
    assert call(found, "_rebuild_tensor", ref, 1, (2, 2), (2, 1)).shape == (2, 2)
    other = call(found, "_rebuild_tensor_v3", ref, 0, (24,), (1,), False, hooks, Named("torch", "int8", 0))
    assert (other.dtype.name, other.form.rpartition(".")[2]) == ("int8", "_rebuild_tensor_v3")
    with_metadata = call(found, "_rebuild_tensor_v2", ref, 0, (6,), (1,), False, hooks, DictOf("dict"))
    assert type(with_metadata) is TensorOf


@pytest.mark.parametrize(
    "args",
    [
        (), (1, 2, 3), ("storage", 0, (6,), (1,), False, None), (0, (6,), (1,)),
    ],
)  # fmt: skip
def test_arguments_of_another_shape_are_not_torchs(args: tuple[Any, ...]) -> None:
    found, _ = values()
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
                 "_rebuild_qtensor",
                 "_rebuild_sparse_tensor", "_rebuild_nested_tensor", "_rebuild_meta_tensor_no_storage",
                 "_rebuild_wrapper_subclass", "_rebuild_parameter_with_state"):  # fmt: skip
        assert call(found, name, *args) is NOT_MINE, name


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [("0", (6,), (1,)), (0, (6.0,), (1,)), (0, (6,), "1"), (0, (True,), (1,))]
)
def test_shapes_not_made_of_integers_are_reported(offset: Any, size: Any, stride: Any) -> None:
    found, ref = values()
    assert call(found, "_rebuild_tensor_v2", ref, offset, size, stride, False, DictOf("OrderedDict")) is NOT_MINE
    assert [p.rule for p in found.problems] == ["invalid-shape"]


def test_an_attribute_that_replaces_the_class_is_a_hazard() -> None:
    found, ref = values()
    state = DictOf("dict")
    state.flat = ["__class__", Named("os", "system", 0)]
    args = (ref, 0, (6,), (1,), False, DictOf("OrderedDict"))
    rebuild, kind = Named("torch._utils", "_rebuild_tensor_v2", 0), Named("torch", "Tensor", 0)
    call(found, "_rebuild_from_type_v2", rebuild, kind, args, state, module="torch._tensor")
    assert [p.rule for p in found.problems] == ["build-hazard"]


def test_a_state_that_every_tensor_shares_is_looked_at_once() -> None:
    found, ref = values()
    state = DictOf("dict")
    state.flat = ["name", 1] * 500_000
    rebuild, kind = Named("torch._utils", "_rebuild_tensor_v2", 0), Named("torch", "Tensor", 0)
    args = (ref, 0, (6,), (1,), False, DictOf("OrderedDict"))
    began = time.process_time()
    for _ in range(500):
        call(found, "_rebuild_from_type_v2", rebuild, kind, args, state, module="torch._tensor")
    assert time.process_time() - began < 3
    state.flat += ["__class__", kind]
    call(found, "_rebuild_from_type_v2", rebuild, kind, args, state, module="torch._tensor")
    assert [p.rule for p in found.problems] == ["build-hazard"]


def test_sizes_are_tuples_lists_or_sizes_of_integers() -> None:
    size = CallOf("REDUCE", Named("torch", "Size", 0), ((1, 2),))
    assert sizes((1, 2)) == sizes(size) == sizes(ListOf("list", [1, 2])) == (1, 2)
    for bad in (None, 3, (1.0,), (True,), (1,) * 100_000, ListOf("list", [1] * 100_000), ListOf("set", [1])):
        assert sizes(bad) is None


def test_tensors_are_found_inside_containers() -> None:
    found, ref = values()
    one = call(found, "_rebuild_tensor", ref, 0, (6,), (1,))
    state = DictOf("dict")
    state.flat = ["a", one, "b", (one, ListOf("list", [one]))]
    assert [path for path, _ in tensors_in(state)] == ["a", "b.0", "b.1.0"]
    loop = ListOf("list", [])
    loop.items.append(loop)
    assert tensors_in(loop) == []


# --- real tensors ------------------------------------------------------------------------------------------


def test_real_layouts_are_told(fixtures_dir: Path) -> None:
    layouts = {t.layout for t in tensors(describe(fixtures_dir / "layouts.pth")).values()}
    assert layouts >= {"strided", "sparse_coo", "sparse_csr", "nested", "meta"}
    assert {t.layout for t in tensors(describe(fixtures_dir / "jagged.pth")).values()} >= {"jagged"}
    assert {t.layout for t in tensors(describe(fixtures_dir / "dtensor.pth")).values()} == {"dtensor"}


def test_real_dtypes_are_told_by_their_own_names(fixtures_dir: Path) -> None:
    for entry, tensor in describe(fixtures_dir / "dtypes.pth").tensors():
        assert tensor.dtype.name == entry.key.removesuffix("_per_channel")


def test_every_kind_of_tensor_agrees_with_torch(torch: ModuleType) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "plain": base, "transposed": base.t(), "row": base[2], "strided": base[::2, 1::2], "scalar": base[1, 1],
        "empty": torch.empty(0, 3), "parameter": torch.nn.Parameter(base.clone()), "expanded": torch.ones(1).expand(5),
        "int8": torch.tensor([1], dtype=torch.int8), "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.ones(2, dtype=torch.complex64), "meta": torch.empty(3, 4, device="meta"),
    }  # fmt: skip
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        out = io.BytesIO()
        torch.save(value, out, **options)
        seen = tensors(describe_source(Memory(out.getvalue(), "x.pt")))
        for key, real in value.items():
            ours = seen[key]
            assert f"torch.{ours.dtype.name}" == str(real.dtype), key
            assert (ours.shape, ours.requires_grad) == (tuple(real.shape), real.requires_grad), key
            if key != "meta":
                assert (ours.stride, ours.offset) == (real.stride(), real.storage_offset()), key
        assert seen["plain"].storage == seen["transposed"].storage == seen["row"].storage
