"""Reading archives whose directory is lost: from local header to local header."""

from __future__ import annotations

import io
import struct
import time
import zipfile

from hypothesis import given, strategies as st

from ckpttool.formats import describe_source
from ckpttool.formats.zip_walk import Walk, walk_records
from ckpttool.limits import DEFAULT, Limits
from ckpttool.source import Memory
from ckpttool.testing import zips
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file

VALUE = {"a": tensor((100,), bytes(range(200)) * 2), "b": tensor((2,), b"\0\0\x80\x3f" * 2)}
DATA = torch_file(VALUE)
PLACES = zips.placed(DATA)


def walk(data: bytes, sizes: dict[str, int] | None = None, limits: Limits = DEFAULT) -> Walk:
    return walk_records(Memory(data, "x"), lambda record: (sizes or {}).get(record.name), limits)


def test_the_walk_finds_what_the_directory_lists() -> None:
    found = walk(DATA)
    assert [(r.name, r.header, r.data, r.stop) for r in found.records] == [
        (p.name, p.header, p.start, p.stop) for p in PLACES
    ]
    assert found.partial is None
    assert all(r.crc for r in found.records)


def test_known_sizes_are_believed_before_descriptors_are_searched() -> None:
    fake = b"PK\7\x08" + struct.pack("<III", 0, 0, 0)
    data = torch_file({"a": tensor((4,), fake)})
    found = walk(data, {"archive/data/0": 16})
    assert [r.csize for r in found.records if r.name == "archive/data/0"] == [16]


def test_the_record_in_which_the_file_ends_is_named() -> None:
    place = PLACES[4]
    found = walk(DATA[: place.start + 10], {place.name: 400})
    assert found.partial is not None
    assert (found.partial.name, found.missing) == (place.name, 390)
    assert "ends inside archive/data/0" in found.why


def test_a_lost_header_costs_one_record_only() -> None:
    data = bytearray(DATA)
    data[PLACES[3].header] ^= 0xFF
    names = [r.name for r in walk(bytes(data)).records]
    assert names == [p.name for n, p in enumerate(PLACES) if n != 3]


def test_why_the_walk_ends() -> None:
    directory = PLACES[0].entry
    assert walk(DATA[:directory]).why == "the file ends before the directory"
    assert walk(DATA[: directory + 20]).why == "the file ends inside the directory"
    assert "no header at byte" in walk(DATA[:directory] + b"garbage").why
    assert "more than 2 records" in walk(DATA, limits=Limits(records=2)).why


def test_records_of_other_writers_state_their_sizes() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for record in zips.read_records(DATA):
            target.writestr(record.name, record.data)
    cut = out.getvalue()[: out.getvalue().index(b"PK\1\2")]
    assert [r.name for r in walk(cut).records] == [p.name for p in PLACES]


def test_a_file_without_its_directory_keeps_all_tensors() -> None:
    checkpoint = describe_source(Memory(DATA[: PLACES[0].entry], "x.pt"))
    assert checkpoint.metadata["salvaged"] is True
    assert {entry.key for entry, _ in checkpoint.tensors()} == {"a", "b"}
    (damage,) = (d for d in checkpoint.damage if d.rule == "truncated")
    assert (damage.facts["whole_storages"], damage.facts["storages"]) == (2, 2)
    spans = [s.span for s in checkpoint.storages]
    assert [DATA[s.start : s.stop] for s in spans if s] == [VALUE["a"].storage.data, VALUE["b"].storage.data]


def test_a_lost_payload_is_counted_in_bytes() -> None:
    checkpoint = describe_source(Memory(DATA[: PLACES[4].start + 100], "x.pt"))
    (damage,) = (d for d in checkpoint.damage if d.rule == "truncated")
    assert (damage.facts["whole_storages"], damage.facts["storages"]) == (0, 2)
    assert damage.facts["lost_bytes"] == 408
    assert damage.facts["missing_in_record"] == 300


@given(data=st.binary(max_size=300))
def test_any_bytes_after_a_header_end_in_a_walk(data: bytes) -> None:
    assert walk(b"PK\3\4" + data).why


def test_many_empty_headers_take_no_time() -> None:
    header = b"PK\3\4" + bytes(22) + struct.pack("<HH", 1, 0) + b"a"
    began = time.process_time()
    assert len(walk((header + b"?") * 5000).records) == 5000
    assert time.process_time() - began < 5
