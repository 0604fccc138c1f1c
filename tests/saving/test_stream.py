"""What ``torch.save`` writes through: what was written is what the file has, all of it and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, strategies as st

from ckpttool.errors import WriteFailed
from ckpttool.saving.stream import ProvedStream
from ckpttool.writing.temporary import Replacement


def opened(path: Path) -> Replacement:
    return Replacement(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), path, path.with_suffix(".pth"))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Replacement]:
    with opened(tmp_path / "temporary") as found:
        yield found


@given(pieces=st.lists(st.binary(max_size=40), max_size=12), block=st.integers(1, 64))
def test_each_block_has_the_digest_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "stream"
    with opened(path) as file:
        stream = ProvedStream(file, block)
        for piece in pieces:
            assert stream.write(piece) == len(piece)
        digests = stream.finish()
    data = b"".join(pieces)
    assert path.read_bytes() == data
    blocks = [data[at : at + block] for at in range(0, len(data), block)]
    assert list(digests) == [xxhash.xxh3_128(one).hexdigest() for one in blocks]


def test_bytes_that_somebody_else_appended_are_seen(file: Replacement) -> None:
    stream = ProvedStream(file, 1000)
    stream.write(b"a" * 1000)
    with file.path.open("ab") as other:
        other.write(b"more")
    with pytest.raises(WriteFailed, match=r"1,000 bytes were written, and it has 1,004"):
        stream.finish()


def test_after_a_refusal_nothing_more_is_written(file: Replacement, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ProvedStream(file, 1000)

    def refuse(_self: object, _data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Replacement, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            stream.write(b"first")
    with pytest.raises(OSError, match="No space"):
        stream.write(b"the archive's end")
    file.flush()
    assert file.path.read_bytes() == b""
