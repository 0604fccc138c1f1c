"""The format before torch 1.6 comes out as torch writes it still, and loads."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.draft import Copied, Draft, Held, draft_of
from ckpttool.dtypes import DTYPES
from ckpttool.errors import WriteFailed
from ckpttool.formats import describe, describe_source
from ckpttool.model import Checkpoint, Span, Storage, Tensor
from ckpttool.source import Memory
from ckpttool.testing.rewriting import rewritten, says, written
from ckpttool.testing.samples import FILES
from ckpttool.writing import torch_legacy, torch_zip
from ckpttool.writing.streams import Sink

FLOAT = DTYPES["float32"]
ANEW = {"legacy_module.pth", "legacy_training.pth"}
"""Source texts beside classes are not kept, nor that equal strings stand twice."""


def legacy_files(folder: Path) -> list[Path]:
    found = [p for p in sorted(folder.glob("*")) if p.is_file() and describe(p).format == "torch-legacy"]
    assert len(found) > 3
    return found


def rewrite(source: Path, target: Path) -> bytes:
    with target.open("w+b") as file, Sink(file) as sink:
        torch_legacy.write(draft_of(describe(source)), sink)
    return target.read_bytes()


def test_fixtures_come_out_byte_for_byte(fixtures_dir: Path, tmp_path: Path) -> None:
    for path in legacy_files(fixtures_dir):
        data = rewrite(path, tmp_path / path.name)
        assert path.name in ANEW or data == path.read_bytes(), path
        assert says(data) == says(path.read_bytes())
        assert describe_source(Memory(data)).damage == describe_source(Memory(path.read_bytes())).damage == ()


@pytest.mark.parametrize("order", [(torch_legacy, torch_zip), (torch_zip, torch_legacy)])
def test_a_tree_goes_there_and_back(order: tuple[ModuleType, ModuleType]) -> None:
    there, back = order
    data = FILES["torch-zip" if there is torch_legacy else "torch-legacy"]()
    assert says(rewritten(back, rewritten(there, data))) == says(data)


def one(kind: str = "float32", **facts: Any) -> Draft:
    dtype = DTYPES[kind]
    storage = Storage("0", dtype, 2 * dtype.itemsize, **facts)
    checkpoint = Checkpoint("x", "safetensors", (Tensor(dtype, (2,), (1,), 0, 0),), 0, (storage,))
    return Draft(checkpoint, (Held(bytes(range(2 * dtype.itemsize))),))


def test_big_endian_storages_are_turned() -> None:
    data = written(torch_legacy, one(swapped=True))
    assert data.endswith(struct.pack("<q", 2) + bytes([3, 2, 1, 0, 7, 6, 5, 4]))
    assert written(torch_legacy, one("complex64", swapped=True)).endswith(
        bytes([3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12])
    )


def test_many_keys_are_listed_in_batches_and_sorted_as_text() -> None:
    count = 2001
    nodes: list[Any] = [Tensor(FLOAT, (1,), (1,), 0, i) for i in range(count)]
    from ckpttool.model import Sequence

    nodes.append(Sequence("list", tuple(range(count))))
    storages = tuple(Storage(str(i), FLOAT, 4) for i in range(count))
    checkpoint = Checkpoint("x", "safetensors", tuple(nodes), count, storages)
    data = written(torch_legacy, Draft(checkpoint, tuple(Held(struct.pack("<i", i)) for i in range(count))))
    found = describe_source(Memory(data))
    assert found.damage == ()
    for storage in found.storages:
        assert storage.span is not None
        assert data[storage.span.start : storage.span.stop] == struct.pack("<i", int(storage.key))


def test_a_storage_without_all_its_bytes_is_refused() -> None:
    draft = one()
    with pytest.raises(WriteFailed, match="has 4 bytes and its tensors need 8"):
        written(torch_legacy, Draft(draft.checkpoint, (Held(bytes(4)),)))
    with pytest.raises(WriteFailed, match="ended after"):
        written(torch_legacy, Draft(draft.checkpoint, (Copied((Span("<memory>", 0, 8),)),)), Memory(bytes(5)))


def test_torchscript_is_refused(fixtures_dir: Path) -> None:
    with pytest.raises(WriteFailed, match="TorchScript"):
        written(torch_legacy, draft_of(describe(fixtures_dir / "script.pt")))


def test_lost_checksums_are_said() -> None:
    draft = draft_of(describe_source(Memory(FILES["torch-zip"]())))
    assert [loss.what for loss in torch_legacy.losses(draft)] == ["checksums"]
    assert torch_legacy.losses(draft_of(describe_source(Memory(FILES["torch-legacy"]())))) == ()


# --- torch itself ----------------------------------------------------------------------------------------


def saved(torch: ModuleType, value: Any, *, legacy: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def test_files_of_torch_come_out_byte_for_byte(torch: ModuleType) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20), torch.nn.Linear(20, 2))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(4, 30)).sum().backward()
    optimizer.step()
    data = saved(torch, {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    assert rewritten(torch_legacy, data) == data


def test_archives_load_as_the_old_format(torch: ModuleType) -> None:
    shared = torch.arange(12.0)
    value = {"a": shared.view(3, 4).t(), "b": shared[2:5], "c": torch.nn.Parameter(torch.ones(2)), "i": 2**70}
    data = rewritten(torch_legacy, saved(torch, value, legacy=False))
    assert data[:2] == b"\x80\x02"
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert loaded["a"].equal(value["a"])
    assert loaded["a"].stride() == (1, 4)
    assert loaded["a"].untyped_storage().data_ptr() == loaded["b"].untyped_storage().data_ptr()
    assert isinstance(loaded["c"], torch.nn.Parameter)
    assert loaded["i"] == 2**70


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "uint16"])
def test_types_that_came_later_load_too(torch: ModuleType, kind: str) -> None:
    draft = one(kind)
    loaded = torch.load(io.BytesIO(written(torch_legacy, draft)), weights_only=True)
    assert (str(loaded.dtype), loaded.shape) == (f"torch.{kind}", (2,))
    assert loaded.view(torch.uint8).tolist() == list(range(2 * DTYPES[kind].itemsize))


def test_a_part_of_a_storage_is_kept_as_such(torch: ModuleType) -> None:
    part = Tensor(FLOAT, (2,), (1,), 1, 0, form="storage")
    checkpoint = Checkpoint("x", "torch-legacy", (part,), 0, (Storage("0", FLOAT, 16),))
    data = written(torch_legacy, Draft(checkpoint, (Held(struct.pack("<4f", 1, 2, 3, 4)),)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.load(io.BytesIO(data), weights_only=False)
        assert loaded.tolist() == [2.0, 3.0]
    assert replace(describe_source(Memory(data)), nodes=()).storages[0].nbytes == 16
