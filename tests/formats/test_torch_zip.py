"""Archives of ``torch.save``: every record's fields, variants of the container, truncations, the chain of checksums."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.checks import rules
from ckpttool.dtypes import DTYPES
from ckpttool.formats import describe_source, torch_zip
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Damage, Mapping, Tensor
from ckpttool.source import LocalFile, Memory
from ckpttool.testing.plain import Call, Global, StateDict, Storage, Tensor as Plain, tensor
from ckpttool.testing.writers import torch_file, torch_records
from ckpttool.testing.zips import Record, archive, placed, read_records, replaced, torch_zip as zipped

FLOATS = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def small() -> StateDict:
    made = StateDict(weight=tensor((2, 3), FLOATS), bias=tensor((2,), FLOATS[:8]))
    made.state = {"_metadata": {"": {"version": 1}}}
    return made


SMALL = torch_file(small())


def read(data: bytes, limits: Limits = DEFAULT) -> Checkpoint:
    return describe_source(Memory(data, "x.pt"), limits, audit=True)


def found(data: bytes) -> dict[str, Damage]:
    return {d.rule: d for d in read(data).damage}


def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {entry.key: node for entry, node in checkpoint.tensors()}


def content(checkpoint: Checkpoint, data: bytes, key: str) -> bytes:
    at = tensors(checkpoint)[key].storage
    assert at is not None
    span = checkpoint.storages[at].span
    assert span is not None
    return data[span.start : span.stop]


def repacked(data: bytes, method: int, *, strip: bool = False) -> bytes:
    """The same records, packed by Python's ``zipfile``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for record in read_records(data):
            target.writestr(record.name.partition("/")[2] if strip else record.name, record.data)
    return out.getvalue()


# --- what is described -------------------------------------------------------------------------------------


def test_tensors_storages_and_records_are_described() -> None:
    checkpoint = read(SMALL)
    assert (checkpoint.format, checkpoint.kind, checkpoint.damage) == ("torch-zip", "", ())
    assert (checkpoint.nbytes, checkpoint.files) == (len(SMALL), ("x.pt",))
    weight = tensors(checkpoint)["weight"]
    assert (weight.dtype.name, weight.shape, weight.stride, weight.offset) == ("float32", (2, 3), (3, 1), 0)
    storage = checkpoint.storages[weight.storage or 0]
    assert (storage.nbytes, storage.record, storage.device) == (24, "archive/data/0", "cpu")
    assert storage.checksum is not None
    assert storage.checksum.value == zlib.crc32(FLOATS)
    assert content(checkpoint, SMALL, "weight") == FLOATS
    assert content(checkpoint, SMALL, "bias") == FLOATS[:8]


def test_metadata_says_what_the_container_records() -> None:
    metadata = dict(read(SMALL).metadata)
    identity = metadata.pop("serialization_id")
    assert isinstance(identity, str)
    assert len(identity) == 40
    assert metadata == {
        "version": "3", "byteorder": "little", "format_version": "1", "storage_alignment": "64",
        "prefix": "archive", "records": 8, "crc_recorded": True, "torch_writer": True, "salvaged": False,
    }  # fmt: skip


def test_every_record_is_an_extent_with_its_place_and_checksum() -> None:
    extents = read(SMALL).extents
    places = placed(SMALL)
    assert [(e.name, e.span.start, e.span.stop) for e in extents] == [(p.name, p.start, p.stop) for p in places]
    for extent in extents:
        assert extent.checksum is not None
        assert extent.checksum.value == zlib.crc32(SMALL[extent.span.start : extent.span.stop])


def test_a_module_state_dict_keeps_its_metadata() -> None:
    checkpoint = read(SMALL)
    root = checkpoint.nodes[checkpoint.root or 0]
    assert isinstance(root, Mapping)
    assert (root.kind, len(root.keys)) == ("OrderedDict", 2)
    assert root.state is not None


@pytest.mark.parametrize("alignment", [1, 16, 64, 512, 4096])
def test_any_alignment_is_read(alignment: int) -> None:
    records = replaced(torch_records(*_pickled()), ".storage_alignment", str(alignment).encode())
    data = zipped(records, alignment=alignment)
    checkpoint = read(data)
    assert checkpoint.damage == ()
    assert content(checkpoint, data, "weight") == FLOATS
    assert all(s.span is not None and s.span.start % alignment == 0 for s in checkpoint.storages)


def _pickled() -> Any:
    from ckpttool.testing.plain import Pickled

    return Pickled.dumps(small())


def test_without_checksums_nothing_is_wrong_and_nothing_is_proved() -> None:
    checkpoint = read(torch_file(small(), checksums=False))
    assert checkpoint.metadata["crc_recorded"] is False
    assert all(e.checksum is None for e in checkpoint.extents)
    assert all(s.checksum is None for s in checkpoint.storages)
    assert checkpoint.damage == ()


def test_big_endian_storages_say_so_where_bytes_matter() -> None:
    value = {"a": tensor((1,), b"\0\0\x80\x3f"), "b": tensor((4,), b"\0\1\2\3", "uint8")}
    records = [r for r in read_records(torch_file(value)) if not r.name.endswith("serialization_id")]
    checkpoint = read(zipped(replaced(records, "byteorder", b"big")))
    assert [(s.dtype.name, s.swapped) for s in checkpoint.storages] == [("float32", True), ("uint8", False)]


def test_stored_again_by_another_program_is_read_alike() -> None:
    data = repacked(SMALL, zipfile.ZIP_STORED)
    checkpoint = read(data)
    assert content(checkpoint, data, "weight") == FLOATS
    assert checkpoint.metadata["torch_writer"] is False
    assert not [d for d in checkpoint.damage if rules()[d.rule].severity == "error"]


def test_deflated_records_are_described_and_counted_in_one_finding() -> None:
    checkpoint = read(repacked(SMALL, zipfile.ZIP_DEFLATED))
    assert set(tensors(checkpoint)) == {"weight", "bias"}
    assert {e.method for e in checkpoint.extents} == {"deflate"}
    (damage,) = (d for d in checkpoint.damage if d.rule == "compressed-record")
    assert damage.facts["records"] == 8
    assert "8 of 8 records" in damage.message


def test_an_inflate_bomb_is_not_inflated() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", bytes(30 << 20))
        target.writestr("archive/version", "3\n")
    assert "inflate-bomb" in {d.rule for d in read(out.getvalue(), Limits(inflated_bytes=4 << 20)).damage}


# --- names -------------------------------------------------------------------------------------------------


def test_records_without_a_folder_are_read_and_reported() -> None:
    data = repacked(SMALL, zipfile.ZIP_STORED, strip=True)
    assert content(read(data), data, "weight") == FLOATS
    assert "bad-record-name" in found(data)


def with_records(*more: Record) -> bytes:
    return archive([*read_records(SMALL), *more])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("archive/data/0", "duplicate-record"),
        ("archive/DATA.pkl", "duplicate-record"),
        ("archive/../escape", "bad-record-name"),
        ("/etc/passwd", "bad-record-name"),
        ("C:/x", "bad-record-name"),
        ("archive/a\\b", "bad-record-name"),
        ("archive/data/0\0", "bad-record-name"),
        ("other/data.txt", "bad-record-name"),
        ("archive/readme.txt", "foreign-record"),
    ],
)
def test_names_that_two_readers_may_read_differently(name: str, rule: str) -> None:
    assert rule in found(with_records(Record(name, b"content")))


def test_a_case_twin_alone_is_found_as_torch_finds_it() -> None:
    records = [
        Record(r.name.replace("data.pkl", "Data.PKL"), r.data) if r.name.endswith("data.pkl") else r
        for r in read_records(SMALL)
    ]
    checkpoint = read(archive(records))
    assert set(tensors(checkpoint)) == {"weight", "bias"}
    assert "case-name" in {d.rule for d in checkpoint.damage}


def test_a_pickle_beside_the_tree_is_looked_into() -> None:
    checkpoint = read(with_records(Record("archive/extra.pkl", b"cos\nsystem\n.")))
    (use,) = (g for g in checkpoint.globals if g.dotted == "os.system")
    assert use.beside
    assert use.where == "archive/extra.pkl"


def test_a_second_pickle_after_the_first_is_looked_into() -> None:
    pickled = next(r.data for r in read_records(SMALL) if r.name.endswith("data.pkl"))
    data = zipped(replaced(read_records(SMALL), "data.pkl", pickled + b"cos\nsystem\n."))
    checkpoint = read(data)
    assert "trailing-pickle" in {d.rule for d in checkpoint.damage}
    assert "os.system" in {g.dotted for g in checkpoint.globals}


def test_a_missing_tree_or_version_is_reported() -> None:
    for tail in ("data.pkl", "version"):
        rest = [r for r in read_records(SMALL) if not r.name.endswith("/" + tail)]
        damage = found(archive(rest))["missing-record"]
        assert tail in damage.where


@pytest.mark.parametrize(
    ("tail", "text"),
    [("version", b"0\n"), ("version", b"99\n"), ("version", b"three\n"), ("byteorder", b"middle"),
     (".format_version", b"2"), (".storage_alignment", b"x")],
)  # fmt: skip
def test_small_records_hold_what_torch_writes(tail: str, text: bytes) -> None:
    assert "bad-version-record" in found(zipped(replaced(read_records(SMALL), tail, text)))


# --- the chain of checksums --------------------------------------------------------------------------------


def test_the_serialization_id_covers_every_record_before_it() -> None:
    records = read_records(SMALL)
    assert "serialization-id" not in found(archive(records))
    for place, record in enumerate(records[:-1]):
        changed = list(records)
        changed[place] = Record(record.name, record.data[:-1] + bytes([record.data[-1] ^ 1]))
        assert "serialization-id" in found(archive(changed)), record.name
    assert "serialization-id" in found(archive([records[1], records[0], *records[2:]]))
    assert "serialization-id" in found(archive([*records[:5], *records[6:]]))


def test_the_serialization_id_of_a_real_file_agrees(fixtures_dir: Path) -> None:
    for name in ("mlp.pth", "training.pth", "aligned.pth"):
        source = LocalFile(fixtures_dir / name)
        assert torch_zip.read_thoroughly(source, DEFAULT).damage == ()
        source.close()


# --- truncation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_prefix_says_what_is_left(stride: int) -> None:
    ends = {p.name: p.stop for p in placed(SMALL)}
    storages = [stop for name, stop in ends.items() if "/data/" in name]
    for length in range(4, len(SMALL), stride):
        checkpoint = read(SMALL[:length])
        cut = [d for d in checkpoint.damage if d.rule == "truncated"]
        assert len(cut) == 1, (length, checkpoint.damage)
        facts = cut[0].facts
        if length >= ends["archive/data.pkl"]:
            assert facts["whole_storages"] == sum(stop <= length for stop in storages), length
            assert facts["storages"] == 2
            assert set(tensors(checkpoint)) == {"weight", "bias"}


def test_prefixes_below_a_signature_are_no_checkpoint() -> None:
    for length in range(4):
        assert read(SMALL[:length]).kind


def test_a_truncated_file_still_gives_its_whole_tensors() -> None:
    data = SMALL[: placed(SMALL)[5].start]
    checkpoint = read(data)
    assert content(checkpoint, data, "weight") == FLOATS
    assert checkpoint.storages[1].span is not None
    assert checkpoint.storages[1].span.nbytes == 0


# --- tensors of many kinds ---------------------------------------------------------------------------------


def test_views_share_their_storage() -> None:
    storage = Storage(FLOATS, DTYPES["float32"])
    value = {
        "all": Plain(storage, (6,), (1,)),
        "tail": Plain(storage, (2,), (1,), 4),
        "t": Plain(storage, (3, 2), (1, 3)),
    }
    seen = tensors(read(torch_file(value)))
    assert {t.storage for t in seen.values()} == {0}
    assert (seen["tail"].offset, seen["t"].stride) == (4, (1, 3))


def test_an_object_without_its_class_shows_what_it_holds() -> None:
    model = Call(Global("nets", "Net"), (), {"_parameters": {"w": tensor((6,), FLOATS)}, "_modules": {}}, how="NEWOBJ")
    checkpoint = read(torch_file(model))
    assert set(tensors(checkpoint)) == {"w"}
    assert [g.dotted for g in checkpoint.globals if g.module == "nets"] == ["nets.Net"]


def test_limits_hold_for_the_tree() -> None:
    checkpoint = read(SMALL, Limits(operations=10))
    assert "over-limit" in {d.rule for d in checkpoint.damage}
    assert checkpoint.root is None


# --- against torch -----------------------------------------------------------------------------------------


def saved(torch: ModuleType, value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that a test defines has no source to go along
        torch.save(value, out, **options)
    return out.getvalue()


def test_whole_modules_show_the_names_of_their_state_dict(torch: ModuleType, monkeypatch: Any) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
            self.scale = torch.nn.Parameter(torch.ones(2))
            self.register_buffer("mask", torch.zeros(5))
            self.head = self.body[0]

    import __main__

    Net.__module__, Net.__qualname__ = "__main__", "Net"
    monkeypatch.setattr(__main__, "Net", Net, raising=False)
    model = Net()
    for legacy in (False, True):
        data = saved(torch, model, _use_new_zipfile_serialization=not legacy)
        checkpoint = read(data)
        real = model.state_dict()
        seen = tensors(checkpoint)
        assert set(seen) == set(real)
        for key, value in real.items():
            assert seen[key].shape == tuple(value.shape)
            assert content(checkpoint, data, key) == value.numpy().tobytes()


def test_scripts_show_their_parameters(torch: ModuleType) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases call TorchScript deprecated
        torch.jit.save(torch.jit.script(model), out)
    data = out.getvalue()
    checkpoint = read(data)
    assert checkpoint.format == "torchscript"
    assert "contains-code" in {d.rule for d in checkpoint.damage}
    for key, value in model.state_dict().items():
        assert content(checkpoint, data, key) == value.numpy().tobytes()


def test_scripts_in_the_repository_show_their_parameters(fixtures_dir: Path) -> None:
    for name in ("script.pt", "torch113_script.pt"):
        source = LocalFile(fixtures_dir / name)
        checkpoint = describe_source(source, audit=True)
        source.close()
        assert checkpoint.format == "torchscript"
        assert {d.rule for d in checkpoint.damage} == {"contains-code"}
        assert len(tensors(checkpoint)) >= 2


def test_real_files_with_every_record_option(torch: ModuleType) -> None:
    from torch.utils.serialization import config

    value = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    for alignment in (64, 512):
        config.save.storage_alignment = alignment
        try:
            data = saved(torch, value)
        finally:
            config.save.storage_alignment = 64
        checkpoint = read(data)
        assert checkpoint.damage == ()
        assert content(checkpoint, data, "a") == value["a"].numpy().tobytes()


def test_above_4_gib_offsets_and_sizes_take_64_bits(torch: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        value = {"big": torch.empty((1 << 30) + 5), "next": torch.empty(4), "last": torch.empty(1 << 20)}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(value, path)
    assert path.stat().st_blocks * 512 < 1 << 30
    source = LocalFile(path)
    checkpoint = describe_source(source, audit=True)
    seen = tensors(checkpoint)
    assert checkpoint.damage == ()
    assert seen["big"].shape == ((1 << 30) + 5,)
    spans = [s.span for s in checkpoint.storages]
    assert [s.nbytes for s in spans if s is not None] == [(4 << 30) + 20, 16, 4 << 20]
    assert spans[1] is not None
    assert spans[1].start > 4 << 30
    source.close()
