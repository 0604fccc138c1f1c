"""What is not a checkpoint is named for what it is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import describe, describe_source, foreign
from ckpttool.formats.tar_members import members
from ckpttool.limits import DEFAULT
from ckpttool.model import Checkpoint
from ckpttool.source import Memory

OID = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
FIXTURES = {
    "lfs_pointer.pth": ("git-lfs-pointer", OID),
    "page.html.pth": ("html", "'Sign in to continue'"),
    "error.json.pth": ("json", "'Entry not found'"),
    "error.xml.pth": ("xml", "AccessDenied – Request has expired"),
    "empty.pth": ("empty", "0 bytes"),
    "zeros.pth": ("zeros", "nothing but zeros"),
    "gzip.pth": ("gzip", "gzip-compressed"),
    "archive.tar": ("tar", "2 members: 'run/config.json', 'run/notes.txt'"),
    "array.npy": ("npy", "'shape': (2, 3)"),
    "arrays.npz": ("npz", "2 numpy arrays"),
    "model.onnx": ("onnx", "written by fixture"),
    "model.gguf": ("gguf", "version 3, with 1 tensor"),
    "weights.h5": ("hdf5", "HDF5"),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_real_strangers_are_named(fixtures_dir: Path, name: str) -> None:
    ident, said = FIXTURES[name]
    checkpoint = describe(fixtures_dir / name)
    (damage,) = checkpoint.damage
    assert (checkpoint.format, damage.rule, damage.facts["kind"]) == (ident, "not-a-checkpoint", ident)
    assert said in damage.message
    assert checkpoint.kind
    assert checkpoint.root is None
    assert "weights_only" not in damage.hint


def test_a_pointer_tells_the_real_files_size_and_digest(fixtures_dir: Path) -> None:
    (damage,) = describe(fixtures_dir / "lfs_pointer.pth").damage
    assert damage.facts == {"kind": "git-lfs-pointer", "oid": f"sha256:{OID}", "bytes": 102530333}
    assert damage.hint == "git lfs install, then: git lfs pull --include='lfs_pointer.pth'"


def read(data: bytes) -> Checkpoint:
    return foreign.read(Memory(data, "x.pth"), DEFAULT)


def said(data: bytes) -> tuple[str, str]:
    checkpoint = read(data)
    return checkpoint.format, checkpoint.damage[0].message


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "ident", "part"),
    [
        (b"\xef\xbb\xbf  <html><head><title>\n A &amp; B </title>", "html", "'A & B'"),
        (b"<html>\x1b[2J<title>\x1b[31mred</title>", "html", r"'\\x1b[31mred'"),
        (b"<html>no title", "html", "without a title"),
        (b"<rss version='2'/>", "xml", "<rss>"),
        (b'{"error": {"message": "gone"}}', "json", "'gone'"),
        (b'{"weight_map": {}}', "json", "an index of shards"),
        (b'{"a": ' + b"1" * 70_000, "json", "70.0 kB"),
        (b"[1, 2]", "json", "6 bytes"),
        (zipped(**{"run/best.pth": b""}), "zip", "'run/best.pth'"),
        (zipped(), "zip", "empty"),
        (zipped(**{"model.weights.h5": b"", "config.json": b""}), "keras", "Keras"),
        (zipped(**{"p/data/weights/weight_0": b"", "p/byteorder": b"little"}), "pt2", "torch.export in 2 records"),
        (zipped(**{"p/archive_format": b"pt2", "p/.data/serialization_id": b"1"}), "pt2", "torch.export"),
        (tarred(**{"a.txt": b"", "b.ckpt": b""}), "tar", "'b.ckpt'"),
        (gzip.compress(zipped(a=b""), mtime=0), "gzip", "around a zip archive"),
        (gzip.compress(tarred(a=b""), mtime=0), "gzip", "around a tar archive"),
        (gzip.compress(b"\x80\x02N.", mtime=0), "gzip", "around a pickle"),
        (b"\x1f\x8b\x08broken", "gzip", "gzip-compressed data, 9 bytes"),
        (b"BZh91AY", "bzip2", "bzip2"),
        (b"\xfd7zXZ\0", "xz", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7z", "7z"),
        (b"Killed\n", "text", "'Killed'"),
        (b"\x01\x02\x03\xff", "unknown", "4 bytes that begin with 01 02 03 ff"),
        (bytes(8192) + b"\x01\xff" * 9, "unknown", "the first 8.19 kB of 8.21 kB are zero"),
        (b"\xff\xfe" + zipped(a=b""), "unknown", "a zip archive at their end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)  # fmt: skip
def test_strangers_are_named(data: bytes, ident: str, part: str) -> None:
    found, message = said(data)
    assert found == ident
    assert part in message


def test_a_tree_behind_many_weights_is_still_read() -> None:
    many = {f"p/data/weights/weight_{i}": b"" for i in range(100)}
    assert describe_source(Memory(zipped(**many))).format == "pt2"
    assert describe_source(Memory(zipped(**many, **{"p/data.pkl": b"\x80\x02}."}))).format == "torch-zip"


def test_an_archive_says_which_checkpoint_to_unpack() -> None:
    (damage,) = read(tarred(**{"run/last.ckpt": b"", "log": b""})).damage
    assert damage.hint == "unpack it (tar xf) and verify 'run/last.ckpt'"
    assert damage.facts["checkpoints"] == ["run/last.ckpt"]


def test_large_files_of_zeros_are_sampled() -> None:
    data = bytearray(3 << 20)
    assert said(bytes(data))[0] == "zeros"
    data[-1] = 1
    assert said(bytes(data))[0] == "unknown"


def test_a_pickle_dressed_as_a_tar_is_no_tar() -> None:
    block = bytearray(tarred(a=b""))
    block[:4] = b"\x80\x02N."
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    assert next(members(Memory(bytes(block))), None) is not None
    assert foreign.identify(Memory(bytes(block))) is None
    assert [d.rule for d in foreign.polyglot(Memory(bytes(block)), ["pickle"])] == ["polyglot"]


@pytest.mark.parametrize(
    "name", ["mlp.pth", "legacy.pth", "mlp.safetensors", "torch_tar.pth", "arrays.pkl", "script.pt"]
)
def test_checkpoints_are_no_strangers_and_no_polyglots(fixtures_dir: Path, name: str) -> None:
    checkpoint = describe(fixtures_dir / name)
    assert checkpoint.kind == ""
    assert not {"polyglot", "not-a-checkpoint"} & {damage.rule for damage in checkpoint.damage}


@pytest.mark.parametrize("first", ["mlp.safetensors", "legacy.pth", "arrays.pkl"])
@pytest.mark.parametrize("second", ["mlp.pth", "plain zip"])
def test_two_formats_in_one_file_are_reported(tmp_path: Path, fixtures_dir: Path, first: str, second: str) -> None:
    tail = zipped(a=b"x") if second == "plain zip" else (fixtures_dir / second).read_bytes()
    path = tmp_path / "both.bin"
    path.write_bytes((fixtures_dir / first).read_bytes() + tail)
    (damage,) = [d for d in describe(path).damage if d.rule == "polyglot"]
    assert "a zip archive" in damage.message or "a torch zip archive" in damage.message


def test_old_torch_files_are_pickles_without_being_polyglots() -> None:
    assert list(foreign.polyglot(Memory(b"\x80\x02N."), ["torch-legacy", "pickle"])) == []


@given(
    st.binary(max_size=2000),
    st.sampled_from([b"", b"<", b"{", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x08\x07\x12", b"GGUF"]),
)
def test_any_bytes_are_named(data: bytes, start: bytes) -> None:
    checkpoint = read(start + data)
    (damage,) = checkpoint.damage
    assert checkpoint.kind
    assert damage.message.isprintable()
    json.dumps(damage.facts)


@given(st.data())
def test_no_mutated_tar_raises_or_hangs(data: st.DataObject) -> None:
    content = bytearray(tarred(**{"a.pth": b"abc", "b": bytes(700)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 1023))] = data.draw(st.integers(0, 255))
    assert len(list(members(Memory(bytes(content))))) <= 1000
    read(bytes(content))


def test_members_agree_with_tarfile(fixtures_dir: Path) -> None:
    for name in ("archive.tar", "torch_tar.pth"):
        data = (fixtures_dir / name).read_bytes()
        with tarfile.open(fixtures_dir / name) as archive:
            theirs = [(m.name, m.offset_data, m.size) for m in archive if m.isfile()]
        assert [(m.name, m.start, m.stop - m.start) for m in members(Memory(data))] == theirs
