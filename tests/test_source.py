"""Sources: ranged reads from files and memory, and one clear reason for what cannot be opened."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.errors import MissingExtra, Unreadable
from ckpttool.model import repeated
from ckpttool.source import MAP_FROM, LocalFile, Memory, Source, open_source

DATA = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("source") / "x.pt"
    made.write_bytes(DATA)
    return made


@given(start=st.integers(0, 1100), nbytes=st.integers(-2, 1100))
def test_files_and_memory_read_alike(path: Path, start: int, nbytes: int) -> None:
    file = LocalFile(path)
    for source in (file, Memory(DATA)):
        assert source.read(start, nbytes) == DATA[start : start + max(nbytes, 0)]
        assert bytes(source.window(start, start + max(nbytes, 0))) == DATA[start : start + max(nbytes, 0)]
        buffer = bytearray(max(nbytes, 0))
        got = source.readinto(start, memoryview(buffer))
        assert buffer[:got] == DATA[start : start + max(nbytes, 0)]
    file.close()


def test_large_windows_are_mapped_and_equal(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAP_FROM + 100)
        file.seek(MAP_FROM + 50)
        file.write(b"here")
    source = LocalFile(large)
    window = source.window(0, source.size)
    assert isinstance(window, memoryview)
    assert bytes(window[MAP_FROM + 50 : MAP_FROM + 54]) == b"here"
    assert isinstance(source.window(0, 10), bytes)
    del window
    source.close()


def test_threads_share_a_file(path: Path) -> None:
    source = LocalFile(path)
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(at for at in range(1000) if source.read(at, 7) != DATA[at : at + 7])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    source.close()


def test_changes_after_opening_are_noticed(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(DATA)
    source = LocalFile(target)
    assert not source.changed()
    with target.open("ab") as file:
        file.write(b"more")
    assert source.changed()
    assert source.size == len(DATA)
    source.close()
    again = LocalFile(target)
    os.utime(target, ns=(1, 1))
    assert again.changed()
    again.close()


def test_a_file_that_shrank_reads_short(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(DATA)
    source = LocalFile(target)
    os.truncate(target, 100)
    assert source.read(90, 50) == DATA[90:100]
    assert source.readinto(90, memoryview(bytearray(50))) == 10
    source.close()


def test_opening_never_writes_and_never_waits(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(DATA)
    before = target.stat()
    source = LocalFile(target)
    source.read(0, 10)
    source.close()
    source.close()
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    began = time.monotonic()
    with pytest.raises(Unreadable, match="a FIFO, not a regular file"):
        LocalFile(fifo)
    assert time.monotonic() - began < 1


def test_each_reason_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    reasons = {
        tmp_path / "nothing": "no such file or directory", tmp_path: "a directory", loop: "a loop of symbolic links",
        Path("/dev/zero"): "a character device", Path("a\0b"): "NUL byte",
    }  # fmt: skip
    for where, reason in reasons.items():
        with pytest.raises(Unreadable, match=reason) as caught:
            LocalFile(where)
        assert "\0" not in str(caught.value)


def test_no_handle_is_left_behind(tmp_path: Path) -> None:
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("no /proc")
    before = len(list(handles.iterdir()))
    for _ in range(20):
        with pytest.raises(Unreadable):
            LocalFile(tmp_path)
    assert len(list(handles.iterdir())) == before


@pytest.mark.parametrize("pattern", [b"x", b"abc", bytes(7)])
def test_what_is_repeated_reads_alike_in_every_way(pattern: bytes) -> None:
    source = open_source(repeated(pattern, 0, 50).source)
    whole = (pattern * 50)[:50]
    assert source.size == 50
    for start, stop in [(0, 50), (0, 0), (3, 11), (49, 60), (50, 60)]:
        buffer = bytearray(stop - start)
        count = source.readinto(start, memoryview(buffer))
        assert source.read(start, stop - start) == source.window(start, stop) == whole[start:stop]
        assert (count, bytes(buffer[:count])) == (len(whole[start:stop]), whole[start:stop])


@pytest.mark.parametrize("name", ["repeated://", "repeated:///9", "repeated://zz/9", "repeated://00/many"])
def test_patterns_that_are_none(name: str) -> None:
    with pytest.raises(Unreadable, match="pattern"):
        open_source(name)


def test_urls_need_the_remote_extra_or_are_read_through_it() -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    with fsspec.open("memory://x.pt", "wb") as file:
        file.write(DATA)
    source: Source = open_source("memory://x.pt")
    assert (source.size, source.read(250, 10)) == (len(DATA), DATA[250:260])
    assert source.read(1020, 50) == DATA[1020:]
    with pytest.raises(Unreadable):
        open_source("memory://nothing.pt")


def test_a_url_without_the_extra_names_it() -> None:
    try:
        import fsspec  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match=r"ckpttool\[remote\]"):
            open_source("s3://bucket/x.pt")
    else:
        pytest.skip("fsspec is installed")
