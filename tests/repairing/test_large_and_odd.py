"""Repair of what is large, of other byte orders, of other kinds of archive; and the memory that it takes."""

from __future__ import annotations

import io
import math
import pickle
import struct
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.errors import CkpttoolError, ExitCode
from ckpttool.formats import describe
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_layout import central_entry, descriptor, end_records, local_header
from ckpttool.measure.crc import combine, crc32
from ckpttool.testing.plain import Pickled, Storage, Tensor, tensor
from ckpttool.testing.writers import torch_records
from ckpttool.testing.zips import Record as Entry, placed, torch_zip
from ckpttool.verbs.repair import repair

BIG = (1 << 32) + 4096
"""Bytes of a storage whose size needs 64 bits."""


def zeros_crc(nbytes: int) -> int:
    """The CRC-32 of so many zeros, by doubling."""
    found, power, size = 0, crc32(b"\0"), 1
    while nbytes:
        if nbytes & 1:
            found = combine(found, power, size)
        power, size, nbytes = combine(power, power, size), 2 * size, nbytes >> 1
    return found


def sparse(path: Path, nbytes: int) -> int:
    """An archive as torch writes it, with a storage of zeros that take no room on the disk; its directory's place."""
    big = Tensor(Storage(b"", DTYPES["uint8"], declared=nbytes), (nbytes,), (1,))
    state = {"big": big, "small": tensor((4,), bytes(range(16)))}
    at, entries = 0, []
    with path.open("wb") as file:
        for one in torch_records(*Pickled.dumps(state)):
            wide = one.name.endswith("data/0")
            size, crc = (nbytes, zeros_crc(nbytes)) if wide else (len(one.data), crc32(one.data))
            record = Record(one.name, one.name.encode(), at, 0, size, size, crc, 0, 0x808)
            header = local_header(record, 64)
            file.seek(at)
            file.write(header + one.data)
            file.seek(at + len(header) + size)
            file.write(descriptor(record))
            entries.append(central_entry(record))
            at = file.tell()
        directory = b"".join(entries)
        file.write(directory + end_records(len(entries), len(directory), at))
    return at


@pytest.mark.slow
def test_above_four_gibibytes_the_directory_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "wide.pth"
    start = sparse(path, BIG)
    assert {e.key: t.nbytes for e, t in describe(path).tensors()} == {"big": BIG, "small": 16}
    with path.open("r+b") as file:
        file.truncate(start + 10)
    found: Any = repair(path).json
    assert found["lost"] == []
    assert found["as_written"]
    assert {(one["key"], one["proof"]) for one in found["recovered"]} == {("big", "proved"), ("small", "proved")}


MEASURED = """
import sys
from ckpttool.testing.peaks import peak_megabytes
from ckpttool.verbs.repair import repair
source, output, fill, fix = sys.argv[1:]
repair(source, output, fill=fill, fix_bit=fix == "fix")
print(peak_megabytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
@pytest.mark.parametrize("how", ["fix", "zero", "nan"])
def test_memory_does_not_grow_with_the_tensor(tmp_path: Path, how: str) -> None:
    """A tensor of 320 MB is mended or completed in less than half of its size; as much as it takes for a small one."""
    nbytes = 320 << 20
    path = tmp_path / "bad.pth"
    sparse(path, nbytes)
    with path.open("r+b") as file:
        if how == "fix":
            file.seek(200 << 20)
            file.write(b"\4")
        else:
            file.truncate(300 << 20)
    arguments = ["", "fix"] if how == "fix" else [how, ""]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "out.pth"), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "out.pth").stat().st_size >= nbytes
    assert float(done.stdout) < 120


def tars() -> bytes:
    """A file of torch before 0.1.10: one tensor of six numbers."""

    def entry(second: bytes, cls: bytes) -> bytes:
        return b"\x80\x02K\x07" + second + cls + b"\x87."

    floats = b"ctorch\nFloatStorage\n"
    files = {
        "storages": pickle.dumps(1, 2) + entry(b"X\3\0\0\0cpu", floats) + struct.pack("<q6f", 6, *range(6))
        + pickle.dumps([], 2),
        "tensors": pickle.dumps(1, 2) + entry(b"K\x07", b"ctorch\nFloatTensor\n")
        + struct.pack("<i4x2q2qq", 2, 2, 3, 3, 1, 0),
        "pickle": b"\x80\x02}(X\1\0\0\0wX\1\0\0\x007Qu.",
    }  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def script() -> bytes:
    """A TorchScript archive: code beside the tree."""
    records = torch_records(*Pickled.dumps({"w": tensor((4,), bytes(16))}))
    code = [Entry("archive/code/__torch__.py", b"pass\n" * 9, deflated=True)]
    return torch_zip([*records[4:5], records[0], *code, Entry("archive/constants.pkl", b"\x80\x02)."), records[-1]])


def big_endian() -> bytes:
    """An archive whose numbers are big-endian."""
    records = torch_records(*Pickled.dumps({"w": tensor((4,), struct.pack(">4f", 1, 2, 3, 4))}))
    return torch_zip([replace(r, data=b"big") if r.name.endswith("byteorder") else r for r in records])


KINDS = {"tar": tars, "script": script, "big-endian": big_endian}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_file_of_an_odd_kind_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sound.pth"
    path.write_bytes(KINDS[kind]())
    found: Any = repair(path, tmp_path / "out.pth").json
    assert found["sound"]
    assert len(found["recovered"]) == 1
    assert not (tmp_path / "out.pth").exists()


def test_a_big_endian_archive_stays_one(tmp_path: Path) -> None:
    path, data = tmp_path / "bad.pth", big_endian()
    path.write_bytes(data[:-300])
    assert repair(path, tmp_path / "out.pth").exit_code == ExitCode.OK
    assert (tmp_path / "out.pth").read_bytes() == data


def test_completing_a_big_endian_tensor_keeps_its_order(tmp_path: Path) -> None:
    one = max((p for p in placed(big_endian()) if "/data/" in p.name), key=lambda p: p.start)
    (tmp_path / "bad.pth").write_bytes(big_endian()[: one.start + 8])
    repair(tmp_path / "bad.pth", tmp_path / "out.pth", fill="nan")
    found = describe(tmp_path / "out.pth")
    storage = found.storages[0]
    assert storage.span is not None
    raw = (tmp_path / "out.pth").read_bytes()[storage.span.start : storage.span.stop]
    first, second, *made = struct.unpack(">4f" if storage.swapped else "<4f", raw)
    assert (first, second) == (1, 2)
    assert all(math.isnan(value) for value in made)


def test_a_damaged_script_gives_its_tensors_and_says_that_code_is_lost(tmp_path: Path) -> None:
    data = script()
    path = tmp_path / "bad.pt"
    path.write_bytes(data[: placed(data)[0].entry + 20])
    with pytest.raises(CkpttoolError, match="code"):
        repair(path, tmp_path / "out.pt")
    found: Any = repair(path, tmp_path / "out.safetensors").json
    assert [one["key"] for one in found["lost"]] == ["code"]
    assert found["exit_code"] == 1
    assert {(one["key"], one["proof"]) for one in found["recovered"]} == {("w", "proved")}


def test_of_a_tar_that_ends_early_nothing_is_made_up(tmp_path: Path) -> None:
    data = tars()
    (tmp_path / "bad.pth").write_bytes(data[:700])
    with pytest.raises(CkpttoolError):
        repair(tmp_path / "bad.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
