"""Several writers and readers of one path: each sees one whole checkpoint with the manifest that fits it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpttool
from ckpttool.manifest import read_manifest, sidecar

torch = pytest.importorskip("torch")

WRITER = """
import sys, time, torch, ckpttool
for number in range(int(sys.argv[3])):
    value = float(int(sys.argv[2]) * 1000 + number)
    ckpttool.save({"w": torch.full((2000 + number,), value), "step": value}, sys.argv[1])
    time.sleep(0.03)
"""


def state(step: float) -> dict[str, Any]:
    return {"w": torch.full((2000,), float(step)), "step": step}


def whole(path: Path) -> float:
    """The step of a checkpoint that is all of one save."""
    found = ckpttool.load(path)
    assert bool((found["w"] == found["step"]).all())
    return float(found["step"])


def in_threads(*work: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def fits(path: Path) -> None:
    """The manifest speaks of this file, and of no other."""
    manifest = read_manifest(sidecar(str(path)))
    assert manifest.files[0].nbytes == path.stat().st_size
    assert manifest.previous is None
    report: Any = ckpttool.verify([path]).json
    assert report["targets"][0]["integrity"] == "proved"
    assert not [f for f in report["targets"][0]["findings"] if f["code"].startswith("CK13")]


def test_threads_that_write_one_path(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"

    def write(number: int) -> Callable[[], None]:
        def run() -> None:
            for count in range(15):
                ckpttool.save(state(number * 100 + count), path)

        return run

    in_threads(*(write(number) for number in range(3)))
    fits(path)
    assert whole(path) % 100 == 14
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "a.pth.manifest.json"]


def test_a_reader_never_sees_a_bad_file(tmp_path: Path) -> None:
    """It reads while another thread replaces: never damaged, never edited, never a mix, never back in time."""
    path = tmp_path / "a.pth"
    ckpttool.save(state(0), path)
    done = threading.Event()
    seen: list[float] = []

    def write() -> None:
        try:
            for step in range(1, 80):
                ckpttool.save(state(step), path)
                time.sleep(0.01)
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            seen.append(whole(path))
            assert ckpttool.verify([path]).exit_code == 0, "verify looks again as well"

    in_threads(write, read)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_that_write_one_path_under_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    ckpttool.save(state(0), path)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n), "200"]) for n in (1, 2, 3)]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        whole(path)
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    fits(path)
    assert whole(path) % 1000 == 199
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "a.pth.manifest.json"]
    print(f"\n600 saves of three processes, {reads} reads meanwhile")


def test_a_file_that_is_written_in_place_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between verifying and loading: what was verified is what is loaded, or nothing."""
    from ckpttool.saving import load as module

    path = tmp_path / "a.pth"
    ckpttool.save(state(1), path)
    real = module.verify

    def meddled(*arguments: Any, **wishes: Any) -> Any:
        report = real(*arguments, **wishes)
        time.sleep(0.02)  # the time of writing is to move
        data = bytearray(path.read_bytes())
        data[data.rindex(b"\x00\x00\x80?") + 3] ^= 1
        path.write_bytes(data)
        return report

    monkeypatch.setattr(module, "verify", meddled)
    with pytest.raises(ckpttool.Damaged, match="written to while it was loaded"):
        ckpttool.load(path)


def test_a_file_that_is_replaced_after_it_was_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one that would not pass: it must not be what is loaded."""
    from ckpttool.saving import load as module

    path, evil = tmp_path / "a.pth", tmp_path / "evil.pth"
    ckpttool.save(state(1), path)
    judge = module._judge

    def swapped(*arguments: Any) -> None:
        judge(*arguments)
        torch.save(state(666), evil)
        evil.replace(path)

    monkeypatch.setattr(module, "_judge", swapped)
    if Path("/proc/self/fd").exists():
        assert ckpttool.load(path)["step"] == 1
    else:
        with pytest.raises(ckpttool.Damaged):
            ckpttool.load(path)


def test_a_file_that_never_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpttool.saving import load as module

    path = tmp_path / "a.pth"
    ckpttool.save(state(1), path)
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    real, count = module.verify, 0

    def replaced(*arguments: Any, **wishes: Any) -> Any:
        nonlocal count
        count += 1
        report = real(*arguments, **wishes)
        ckpttool.save(state(count), path)
        return report

    monkeypatch.setattr(module, "verify", replaced)
    with pytest.raises(ckpttool.Unreadable, match="replaced again and again"):
        ckpttool.load(path)
    assert count > 1
