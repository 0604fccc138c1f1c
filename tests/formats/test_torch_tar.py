"""The tar layout of torch 0.1: recognised, and described as far as it goes."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import describe, torch_tar
from ckpttool.limits import DEFAULT
from ckpttool.model import Checkpoint
from ckpttool.source import Memory

FLOATS = b"ctorch\nFloatStorage\n"


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def dumped(value: object) -> bytes:
    return pickle.dumps(value, 2)


def entry(key: int, second: bytes, cls: bytes) -> bytes:
    """``(key, second, class)`` as a pickle, the class as the bare opcode that names it."""
    return b"\x80\x02K" + bytes([key]) + second + cls + b"\x87."


STORAGES = dumped(1) + entry(7, b"X\x03\0\0\0cpu", FLOATS) + struct.pack("<q6f", 6, *range(6)) + dumped([(8, 7, 2, 4)])
TENSORS = (
    dumped(2)
    + entry(1, b"K\x07", b"ctorch\nFloatTensor\n")
    + struct.pack("<i4x2q2qq", 2, 2, 3, 3, 1, 0)
    + entry(2, b"K\x08", b"ctorch\nFloatTensor\n")
    + struct.pack("<i4x1q1qq", 1, 3, 1, 1)
)
TREE = b"\x80\x02}(X\x01\0\0\0wX\x01\0\0\x001QX\x01\0\0\0vX\x01\0\0\x002Qu."
WHOLE = tar(storages=STORAGES, tensors=TENSORS, pickle=TREE)


def read(data: bytes) -> Checkpoint:
    return torch_tar.read(Memory(data, "x.pth"), DEFAULT)


def rules_of(checkpoint: Checkpoint) -> list[str]:
    return [damage.rule for damage in checkpoint.damage]


def shapes(checkpoint: Checkpoint) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], int]]:
    return {entry.key: (t.shape, t.stride, t.offset) for entry, t in checkpoint.tensors()}


def test_tensors_views_and_shared_storages() -> None:
    checkpoint = read(WHOLE)
    assert rules_of(checkpoint) == ["tar-layout"]
    assert shapes(checkpoint) == {"w": ((2, 3), (3, 1), 0), "v": ((3,), (1,), 3)}
    (storage,) = checkpoint.storages
    assert storage.span is not None
    assert struct.unpack("<6f", WHOLE[storage.span.start : storage.span.stop]) == tuple(range(6))


def test_a_real_file(fixtures_dir: Path) -> None:
    checkpoint = describe(fixtures_dir / "torch_tar.pth")
    assert checkpoint.format == "torch-tar"
    assert rules_of(checkpoint) == ["tar-layout"]
    assert shapes(checkpoint) == {
        "linear.weight": ((2, 3), (3, 1), 0),
        "linear.bias": ((2,), (1,), 0),
        "last_row": ((3,), (1,), 3),
    }
    assert {storage.record for storage in checkpoint.storages} <= {extent.name for extent in checkpoint.extents}


def test_torch_reads_the_same(fixtures_dir: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    theirs = torch.load(fixtures_dir / "torch_tar.pth", weights_only=False)
    ours = shapes(describe(fixtures_dir / "torch_tar.pth"))
    assert ours == {k: (tuple(t.shape), t.stride(), t.storage_offset()) for k, t in theirs.items()}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (tar(storages=STORAGES, pickle=TREE), "missing-record"),
        (tar(storages=dumped(10**9), tensors=TENSORS, pickle=TREE), "storage-table"),
        (tar(storages=dumped(1) + dumped("x"), tensors=TENSORS, pickle=TREE), "storage-table"),
        (tar(storages=STORAGES[:-40], tensors=TENSORS, pickle=TREE), "truncated"),
        (tar(storages=dumped(0) + dumped([]), tensors=TENSORS, pickle=TREE), "storage-missing"),
        (tar(storages=STORAGES, tensors=TENSORS[:-30], pickle=TREE), "storage-table"),
        (tar(storages=STORAGES, tensors=TENSORS, pickle=TREE[:-3]), "pickle-malformed"),
        (tar(storages=STORAGES, tensors=TENSORS, pickle=TREE + b"cos\nsystem\n."), "trailing-pickle"),
        (WHOLE[: 512 * 5 + 20], "truncated"),
    ],
)
def test_damage_is_named(data: bytes, rule: str) -> None:
    assert rule in rules_of(read(data))


def test_names_in_every_member_are_noted() -> None:
    evil = b"cos\nsystem\n(X\x01\0\0\0xtR."
    for data in (
        tar(storages=evil, tensors=TENSORS, pickle=TREE),
        tar(storages=STORAGES, tensors=evil, pickle=TREE),
        tar(storages=STORAGES, tensors=TENSORS, pickle=evil),
    ):
        assert "os.system" in {use.dotted for use in read(data).globals}


def test_sniff(fixtures_dir: Path) -> None:
    assert torch_tar.sniff(Memory(WHOLE))
    assert not torch_tar.sniff(Memory((fixtures_dir / "archive.tar").read_bytes()))
    assert not torch_tar.sniff(Memory(b""))


@given(st.data())
def test_no_mutation_raises(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    read(bytes(content))
    read(bytes(content[:cut]))
