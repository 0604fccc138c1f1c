"""The derived layout of torch's archives: every bit of the framing is checked, and sizes above 4 GiB."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.checks import rules
from ckpttool.errors import Unreadable
from ckpttool.formats import describe_source
from ckpttool.formats.local_headers import locate
from ckpttool.formats.zip_archive import END64_FIXED, END_FIXED, LOCATOR_FIXED, Record, read_directory
from ckpttool.formats.zip_layout import central_entry, chain, descriptor, end_records, local_header, zip64_extra
from ckpttool.limits import DEFAULT
from ckpttool.model import Checkpoint
from ckpttool.source import LocalFile, Memory
from ckpttool.testing import zips
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file

GIB4 = 1 << 32


def record(name: str, header: int, size: int, data: bytes | None = None) -> Record:
    crc = zlib.crc32(data) if data is not None else 0x12345678
    return Record(name, name.encode(), header, 0, size, size, crc, 0, 0x808 if size else 0x800)


def read(data: bytes) -> Checkpoint:
    return describe_source(Memory(data, "x.pt"), audit=True)


def reported(data: bytes) -> bool:
    """Whether reading reports more than a remark."""
    checkpoint = read(data)
    return bool(checkpoint.kind) or any(rules()[d.rule].severity != "info" for d in checkpoint.damage)


def framing(data: bytes) -> list[int]:
    """Every byte that is not payload."""
    payload = {i for place in zips.placed(data) for i in range(place.start, place.stop)}
    return [i for i in range(len(data)) if i not in payload]


def small_file() -> bytes:
    return torch_file({"a": tensor((2,), b"\0\0\x80\x3f" * 2), "b": tensor((0,), b"")})


# --- derivation --------------------------------------------------------------------------------------------


def test_the_derivation_is_what_the_writer_writes() -> None:
    data = small_file()
    for place in zips.placed(data):
        made = record(place.name, place.header, place.stop - place.start, data[place.start : place.stop])
        assert data[place.header : place.start] == local_header(made, 64)
        assert data[place.stop :].startswith(descriptor(made))
        assert data[place.entry :].startswith(central_entry(made))
    places = zips.placed(data)
    start = places[0].entry
    size = zips.end_structures(data)[0] - start
    assert data.endswith(end_records(len(places), size, start))


def test_the_derivation_is_what_torch_writes(fixtures_dir: Path) -> None:
    for name in ("mlp.pth", "training.pth", "tied.pth", "torch113.pth", "dtypes.pth"):
        source = LocalFile(fixtures_dir / name)
        checkpoint = describe_source(source, audit=True)
        source.close()
        assert checkpoint.metadata["torch_writer"] is True
        assert checkpoint.damage == ()


@given(
    start=st.integers(0, 1 << 40),
    name=st.text("abc/.", min_size=1, max_size=80),
    alignment=st.sampled_from([1, 16, 64, 512]),
)
def test_payloads_are_aligned_wherever_they_begin(start: int, name: str, alignment: int) -> None:
    header = local_header(record(name, start, 5), alignment)
    assert (start + len(header)) % alignment == 0
    assert len(header) < 30 + len(name) + 16 + 4 + alignment


def test_sizes_and_offsets_above_4_gib_stand_in_the_zip64_field() -> None:
    big, late = record("a", 0, GIB4), record("a", GIB4 + 7, 5)
    assert zip64_extra(big, 0, local=True) == struct.pack("<HHQQ", 1, 16, GIB4, 0)
    assert zip64_extra(big, 0, local=False) == struct.pack("<HHQQ", 1, 16, GIB4, GIB4)
    assert zip64_extra(late, late.header, local=False) == struct.pack("<HHQ", 1, 8, GIB4 + 7)
    assert zip64_extra(record("a", 0, GIB4 - 2), 0, local=False) == b""
    assert len(descriptor(big)) == len(descriptor(late)) == 24
    assert len(descriptor(record("a", 0, 5))) == 16
    assert descriptor(record("a", 0, 0)) == b""


def test_end_records_saturate() -> None:
    made = end_records(70_000, 5_000_000, GIB4 + 1)
    end = END_FIXED.unpack(made[-END_FIXED.size :])
    end64 = END64_FIXED.unpack(made[: END64_FIXED.size])
    locator = LOCATOR_FIXED.unpack(made[END64_FIXED.size : -END_FIXED.size])
    assert end[3:7] == (0xFFFF, 0xFFFF, 5_000_000, 0xFFFFFFFF)
    assert end64[6:] == (70_000, 70_000, 5_000_000, GIB4 + 1)
    assert locator[2] == GIB4 + 1 + 5_000_000


@given(crcs=st.lists(st.integers(0, 2**32 - 1), max_size=10))
def test_the_chain_is_ordered_and_stays_within_64_bits(crcs: list[int]) -> None:
    assert 0 <= chain(crcs) < 1 << 64
    if len(set(crcs)) > 1 and crcs != crcs[::-1]:
        assert chain(crcs) != chain(crcs[::-1])


# --- every bit of the framing ------------------------------------------------------------------------------


def flips(data: bytes, positions: list[int], seed: int = 0) -> Iterator[tuple[int, bytes]]:
    bits = random.Random(seed)
    for at in positions:
        yield at, data[:at] + bytes([data[at] ^ 1 << bits.randrange(8)]) + data[at + 1 :]


def test_a_flip_of_any_framing_byte_is_reported() -> None:
    data = small_file()
    assert not reported(data)
    missed = [at for at, broken in flips(data, framing(data)) if not reported(broken)]
    assert missed == []


def test_a_flip_of_any_framing_byte_of_a_real_file_is_reported(fixtures_dir: Path) -> None:
    data = (fixtures_dir / "tied.pth").read_bytes()
    positions = framing(data)
    positions = positions if len(positions) < 2500 else positions[:: len(positions) // 2500 + 1]
    missed = [at for at, broken in flips(data, positions, 1) if not reported(broken)]
    assert missed == []


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_the_end_records_is_checked(bit: int) -> None:
    data = small_file()
    start = zips.end_structures(data)[0]
    for at in range(start, len(data)):
        assert reported(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]), at


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_removed_or_doubled_framing_byte_is_reported(stride: int) -> None:
    data = small_file()
    for at in framing(data)[::stride]:
        assert reported(data[:at] + data[at + 1 :]), at
        assert reported(data[:at] + data[at : at + 1] + data[at:]), at


# --- gaps, overlaps, other archives around -----------------------------------------------------------------


def rules_in(data: bytes) -> set[str]:
    return {d.rule for d in read(data).damage}


def test_leading_and_trailing_bytes() -> None:
    data = small_file()
    assert rules_in(data + b"more") == {"trailing-bytes"}
    assert "leading-bytes" in rules_in(b"#!/bin/sh\n" + data)
    checkpoint = read(b"#!/bin/sh\n" + data)
    assert {entry.key for entry, _ in checkpoint.tensors()} == {"a", "b"}
    assert not {d.rule for d in checkpoint.damage} & {"header-mismatch", "descriptor-mismatch", "unowned-bytes"}


def test_a_record_that_the_directory_does_not_list_is_found() -> None:
    records = zips.read_records(small_file())
    hidden = zips.Record("archive/hidden.pkl", b"cos\nsystem\n.", listed=False)
    data = zips.archive([*records[:2], hidden, *records[2:]])
    (damage,) = (d for d in read(data).damage if d.rule == "unowned-bytes")
    assert damage.facts["hidden_record"] is True


def test_two_records_on_one_payload_overlap() -> None:
    data = bytearray(small_file())
    first, second = zips.placed(bytes(data))[:2]
    struct.pack_into("<I", data, second.entry + 42, first.header)
    assert "overlapping-records" in rules_in(bytes(data))


def test_two_archives_in_one_file_are_told() -> None:
    data = small_file()
    other = torch_file({"c": tensor((1,), b"\0\0\0\0")})
    assert "directory-damaged" in rules_in(data + other)


def test_offsets_are_derived_only_where_the_layout_leads_right_to_the_directory(fixtures_dir: Path) -> None:
    source = LocalFile(fixtures_dir / "mlp.pth")
    directory = read_directory(source, DEFAULT)
    assert directory is not None
    read = locate(source, directory.records, True, 64)
    source.close()  # from here on a look at a local header fails
    assert locate(source, directory.records, True, 64, following=directory.start) == read
    with pytest.raises(Unreadable):
        locate(source, directory.records, True, 64, following=directory.start + 8)
