"""Bytes arrive as they were, whichever way they take."""

from __future__ import annotations

import errno
import io
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.draft import Copied, Held
from ckpttool.errors import Unreadable, WriteFailed
from ckpttool.model import Span
from ckpttool.source import Memory
from ckpttool.writing import descriptors, streams
from ckpttool.writing.streams import Sink, chunks

DATA = os.urandom(300_000)


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return str(path)


def ways() -> list[str]:
    return ["kernel", "no reflink", "no copy_file_range", "no kernel"]


def without(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take ways of copying away, as old kernels and other file systems do."""

    def refuse(*args: object) -> int:
        raise OSError(errno.EXDEV, "crosses devices")

    if way != "kernel":
        monkeypatch.setattr(descriptors, "_cloned", lambda *args: 0)
    if way in ("no copy_file_range", "no kernel"):
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    if way == "no kernel":
        monkeypatch.setattr(os, "sendfile", refuse, raising=False)


@pytest.mark.parametrize("way", ways())
def test_ranges_are_copied_between_what_is_written(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    without(way, monkeypatch)
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink:
        sink.write(b"head")
        sink.copy(Span(source, 10, 200_000))
        sink.write(b"middle")
        sink.copy(Span(source, 7, 7))
        sink.copy(Span(source, 299_999, 300_000))
        sink.write(b"tail")
        assert sink.position == file.tell() == 4 + 199_990 + 6 + 1 + 4
    assert (tmp_path / "out").read_bytes() == b"head" + DATA[10:200_000] + b"middle" + DATA[-1:] + b"tail"


def test_whole_blocks_are_shared_or_copied_alike(source: str, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink:
        sink.write(bytes(4096))
        sink.copy(Span(source, 8192, 300_000))
    assert (tmp_path / "out").read_bytes() == bytes(4096) + DATA[8192:]


def test_a_file_that_was_begun_goes_on(source: str, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file:
        file.write(b"before")
        with Sink(file) as sink:
            sink.copy(Span(source, 0, 100))
            assert sink.position == 100
    assert (tmp_path / "out").read_bytes() == b"before" + DATA[:100]


@pytest.mark.parametrize("way", ways())
def test_a_source_that_ends_early_is_an_error(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    without(way, monkeypatch)
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink, pytest.raises(WriteFailed, match="20 of the 30"):
        sink.copy(Span(source, len(DATA) - 20, len(DATA) + 10))


def test_a_full_disk_is_not_taken_for_another_way(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "copy_file_range", full, raising=False)
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink, pytest.raises(OSError, match="no space"):
        sink.copy(Span(source, 1, streams.SMALL + 1))


def test_small_ranges_do_not_ask_the_kernel(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise AssertionError("asked")

    monkeypatch.setattr(streams, "copied", refuse)
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink:
        for start in range(0, 1000, 100):
            sink.copy(Span(source, start, start + 100))
        assert sink.position == 1000
    assert (tmp_path / "out").read_bytes() == DATA[:1000]


def test_a_missing_source_says_so(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink, pytest.raises(Unreadable, match="no such file"):
        sink.copy(Span(str(tmp_path / "none"), 0, 10))


def test_checksums_run_over_what_is_written_and_copied(source: str, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file, Sink(file) as sink:
        sink.write(b"not counted")
        with sink.checksummed() as running:
            sink.write(b"head")
            sink.copy(Span(source, 5, 250_000))
        sink.write(b"not counted")
    assert running.value == zlib.crc32(b"head" + DATA[5:250_000])


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted), max_size=4), st.sampled_from([0, 2, 4, 8])
)
def test_elements_are_turned_wherever_ranges_cut_them(ranges: list[list[int]], width: int) -> None:
    data = DATA[:100]
    content = Copied(tuple(Span("<memory>", *pair) for pair in ranges))
    whole = b"".join(data[start:stop] for start, stop in ranges)
    whole += bytes(-len(whole) % (width or 1))
    content = Copied((*content.spans, Span("<zeros>", 0, len(whole) - content.nbytes)))
    file = io.BytesIO()
    with Sink(file, (Memory(data), Memory(bytes(8), "<zeros>"))) as sink:
        sink.put(content, swap=width)
    turned = b"".join(whole[i : i + width][::-1] for i in range(0, len(whole), width)) if width else whole
    assert file.getvalue() == turned


def test_what_lies_deflated_is_inflated_to_its_size() -> None:
    data = DATA[:1000] + bytes(10_000_000)
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = engine.compress(data) + engine.flush()
    span = Span("<memory>", 0, len(packed))
    assert b"".join(chunks(Copied((span,), inflates_to=len(data)), [Memory(packed)])) == data
    assert b"".join(chunks(Copied((span,), inflates_to=1010), [Memory(packed)])) == data[:1010]
    with pytest.raises(WriteFailed, match="inflates to"):
        list(chunks(Copied((span,), inflates_to=len(data) + 1), [Memory(packed)]))
    with pytest.raises(WriteFailed, match="malformed"):
        list(chunks(Copied((Span("<memory>", 0, 9),), inflates_to=9), [Memory(b"\xff" * 9)]))


def test_what_is_held_comes_as_it_is() -> None:
    assert b"".join(chunks(Held(b"abc"))) == b"abc"
    assert b"".join(chunks(Held(b""))) == b""


@pytest.mark.parametrize(
    ("name", "stem"),
    [("model.pt", "model"), ("a.b.pth", "a.b"), ("model", "model"), (".pt", "archive"), ("é.pt", "archive")],
)
def test_the_stem_is_the_one_that_torch_takes(tmp_path: Path, name: str, stem: str) -> None:
    with (tmp_path / name).open("wb") as file, Sink(file) as sink:
        assert sink.stem == stem
    assert Sink(io.BytesIO()).stem == "archive"
