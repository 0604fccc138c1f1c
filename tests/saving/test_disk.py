"""Disks that are full, folders that may not be written to or are gone: one clear line, and all as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpttool

torch = pytest.importorskip("torch")


def state(step: int, numel: int = 1000) -> dict[str, Any]:
    return {"w": torch.full((numel,), float(step)), "step": step}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(work: Callable[[], object]) -> str:
    """The one line of a failed save; empty where it went well."""
    try:
        work()
    except ckpttool.WriteFailed as error:
        (line,) = str(error).splitlines()
        return line
    return ""


@pytest.fixture
def small_disk(disk_of: Callable[[int], Path]) -> Path:
    return disk_of(2)


def test_a_disk_that_is_full_at_any_byte(small_disk: Path) -> None:
    """Filled so that the save ends at its first page, its second, …, its manifest; then room is made."""
    path, filler = small_disk / "a.pth", small_disk / "filler"
    ckpttool.save(state(1, 50_000), path)
    before = content(small_disk)
    refused = saved = 0
    for room in range(0, 280_000, 8192):
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        filler.write_bytes(b"x" * max(0, free - room))
        error = refusal(lambda: ckpttool.save(state(2, 50_000), path))
        saved += not error
        refused += bool(error)
        if error:
            assert "the disk is full" in error
            assert {k: v for k, v in content(small_disk).items() if k != "filler"} == before
        filler.unlink()
        found = ckpttool.load(path)
        assert bool((found["w"] == found["step"]).all())
        for name, data in before.items():
            (small_disk / name).write_bytes(data)
    assert refused > 20
    assert saved > 3
    assert sorted(content(small_disk)) == ["a.pth", "a.pth.manifest.json"]


def test_a_store_on_a_full_disk_keeps_what_it_has(small_disk: Path) -> None:
    with ckpttool.CheckpointStore(small_disk / "run", keep=2) as store:
        steps = []
        for step in range(1, 30):
            error = refusal(lambda step=step: store.save(state(step, 50_000 + step * 10_000), step=step))
            if error:
                assert "the disk is full" in error
                break
            steps.append(step)
        assert steps
        found = store.load_latest()
        assert found is not None
        assert found.step == steps[-1]
        assert [s for s, _ in store.steps()] == steps[-2:]
        assert not [p for p in store.folder.iterdir() if p.suffix == ".tmp"]


def test_a_read_only_file_system(small_disk: Path) -> None:
    path = small_disk / "a.pth"
    ckpttool.save(state(1), path)
    if subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=False).returncode:
        pytest.skip("remounting is not allowed here")
    with pytest.raises(ckpttool.WriteFailed, match="the file system is read-only"):
        ckpttool.save(state(2), path)
    with pytest.raises(ckpttool.WriteFailed, match=r"cannot be written|cannot be made"):
        ckpttool.CheckpointStore(small_disk)
    assert ckpttool.load(path)["step"] == 1
    assert ckpttool.CheckpointStore(small_disk, readonly=True).load_latest() is None


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    code = """
import os, sys, tempfile, torch, ckpttool
with tempfile.TemporaryDirectory() as folder:
    ckpttool.save({"step": 2}, folder + "/a.pth")  # whatever is imported late is imported now
if os.geteuid() == 0:
    os.setuid(65534)
try:
    ckpttool.save({"step": 2}, sys.argv[1])
except ckpttool.WriteFailed as error:
    print(error)
"""
    path = tmp_path / "run" / "a.pth"
    path.parent.mkdir()
    ckpttool.save(state(1), path)
    before = content(path.parent)
    path.parent.chmod(0o555)
    for folder in path.parent.parents:
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    path.parent.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("cannot be written: permission denied")
    assert content(path.parent) == before


@pytest.mark.parametrize("made", [str, Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_any_kind_of_path(tmp_path: Path, made: Any) -> None:
    ckpttool.save(state(1), made(str(tmp_path / "a.pth")))
    assert ckpttool.load(made(str(tmp_path / "a.pth")))["step"] == 1


def test_a_path_relative_to_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.pth", "./b.pth"):
        ckpttool.save(state(1), name)
        report: Any = ckpttool.verify([name]).json
        assert report["targets"][0]["integrity"] == "proved"
        assert ckpttool.load(name)["step"] == 1


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (7, "takes the path of a file, and this is of type int"),
        ("", "empty"),
        ("s3://bucket/a.pth", "takes local files"),
    ],
)
def test_what_is_no_path(path: Any, why: str) -> None:
    for work in (lambda: ckpttool.save({}, path), lambda: ckpttool.load(path)):
        with pytest.raises(ckpttool.UsageError, match=why):
            work()


def test_an_open_file_is_no_path(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file, pytest.raises(ckpttool.UsageError, match="BufferedWriter"):
        ckpttool.save({}, file)  # type: ignore[arg-type]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ckpttool.WriteFailed, match=r"the folder '.*no/such' does not exist; make it first"):
        ckpttool.save({}, tmp_path / "no" / "such" / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_while_it_is_written_to(tmp_path: Path) -> None:
    class Remover:
        def __reduce__(self) -> Any:
            shutil.rmtree(tmp_path / "run")
            return (dict, ())

    (tmp_path / "run").mkdir()
    with pytest.raises(ckpttool.WriteFailed) as caught:
        ckpttool.save({"x": Remover()}, tmp_path / "run" / "a.pth")
    assert len(str(caught.value).splitlines()) == 1


def test_what_cannot_be_pickled_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    ckpttool.save(state(1), path)
    before = content(tmp_path)
    with pytest.raises(ckpttool.UsageError, match=r"holds what cannot be saved: .*lambda"):
        ckpttool.save({"f": lambda: 0}, path)
    assert content(tmp_path) == before


def test_a_link_is_followed_and_its_target_sealed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "last.pth").symlink_to(tmp_path / "real" / "a.pth")
    ckpttool.save(state(1), tmp_path / "real" / "a.pth")
    ckpttool.save(state(2), tmp_path / "last.pth")
    assert (tmp_path / "last.pth").is_symlink()
    assert sorted(content(tmp_path / "real")) == ["a.pth", "a.pth.manifest.json"]
    assert ckpttool.load(tmp_path / "last.pth")["step"] == 2
    data = bytearray((tmp_path / "real" / "a.pth").read_bytes())
    data[-30] ^= 1  # in the archive's end: no checksum but the manifest's
    (tmp_path / "real" / "a.pth").write_bytes(data)
    with pytest.raises(ckpttool.Damaged):
        ckpttool.load(tmp_path / "last.pth")
