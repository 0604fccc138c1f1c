"""Room is asked for once, what was not filled is given back, and who cannot have it writes all the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ckpttool.draft import draft_of
from ckpttool.formats import describe
from ckpttool.testing.samples import training_state
from ckpttool.testing.writers import torch_file
from ckpttool.writing import reserving
from ckpttool.writing.apply import apply
from ckpttool.writing.reserving import room

LARGE = 64 << 20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def taken(descriptor: int) -> int:
    return os.fstat(descriptor).st_blocks * 512


@LINUX
def test_room_is_there_and_what_was_not_filled_is_given_back(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        with room(file.fileno(), LARGE):
            during = taken(file.fileno())
            file.write(b"some")
            file.flush()
        after = taken(file.fileno())
    if not during:
        pytest.skip("this file system keeps no room")
    assert during >= LARGE
    assert after < LARGE
    assert (tmp_path / "file").read_bytes() == b"some"


def test_small_files_are_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file, room(file.fileno(), reserving.LEAST - 1):
        assert taken(file.fileno()) == 0


def test_without_room_there_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as file, room(file.fileno(), LARGE):  # a file that nobody may write to
        pass
    assert path.read_bytes() == b"old"


def test_a_file_is_the_same_with_room_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "run.pt"
    source.write_bytes(torch_file(training_state()))
    draft = draft_of(describe(source))
    apply(draft, tmp_path / "without.pt", format="torch")
    asked = []
    monkeypatch.setattr(reserving, "LEAST", 1)
    real = reserving._reserved
    monkeypatch.setattr(reserving, "_reserved", lambda file, size: [asked.append(size), real(file, size)][1])
    apply(draft, tmp_path / "with.pt", format="torch")
    assert asked or sys.platform != "linux"
    assert (tmp_path / "with.pt").read_bytes() == (tmp_path / "without.pt").read_bytes()
