"""The whole check on real processes: what is exact is silent, what is broken is named."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from ckpttool.determinism.check import Verdict, Wishes, check
from ckpttool.determinism.running import Command

SCRIPT = str(Path(__file__).with_name("script.py"))


def verdict(work: Path, mode: str, **wishes: object) -> Verdict:
    command = Command((sys.executable, SCRIPT, "{out}", mode), timeout=120)
    given = {"steps": 12, "cuts": 1, "power": False, "prove": False, "jobs": 2, **wishes}
    return check(command, Wishes(**given), work)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words", [("false",), ("/nonexistent/trainer",), (sys.executable, "-c", "print('no training')")]
)
def test_a_command_that_does_not_train_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = check(Command(words), Wishes(5), tmp_path)
    assert found.status == "command-failed"
    assert found.message


def test_a_command_that_hangs_is_ended_with_all_its_children(tmp_path: Path) -> None:
    mark = f"ckpttool-{os.getpid()}-{time.time_ns()}"
    sleep = f"import time; time.sleep(600) # {mark}"
    code = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {sleep!r}]); time.sleep(600)"
    )
    found = check(Command((sys.executable, "-c", code), timeout=3), Wishes(5), tmp_path)
    assert found.status == "command-failed"
    assert "3 s" in found.message
    alive = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _bytes(p)]
    assert [p for p in alive if p.parent.name != str(os.getpid())] == []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_exact_script_is_exact(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = verdict(tmp_path, "good")
    assert found.status == "exact", found.message


@pytest.mark.slow
def test_a_resume_of_a_resume_is_exact_too(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = verdict(tmp_path, "good", cuts=6)
    assert found.status == "exact", found.message
    assert any(len(b.cut) == 2 for b in found.branches)


@pytest.mark.slow
def test_a_lost_optimizer_is_named_and_proved(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = verdict(tmp_path, "no-optimizer", prove=True)
    assert found.status == "diverged"
    assert found.causes[0].name == "optimizer-lost"
    assert found.departure is not None
    assert (found.departure.step, found.departure.loss_step) == (5, 6)
    assert found.branches[0].proof == ("optimizer",)


EXPECTED = {
    "no-rng": ("diverged", "rng-reseeded"),
    "shifted": ("diverged", "data-shifted"),
    "unseeded": ("not-reproducible", ""),
    "never-saves": ("recovery-failed", ""),
    "resume-fails": ("recovery-failed", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", EXPECTED)
def test_what_is_wrong_is_told(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("torch")
    found = verdict(tmp_path, mode)
    assert (found.status, found.causes[0].name if found.causes else "") == EXPECTED[mode], found.message
    if mode == "resume-fails":
        assert "does not fit" in "\n".join(found.lines)


@pytest.mark.slow
def test_parts_that_training_does_not_feel_are_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = verdict(tmp_path, "good", power=True)
    assert found.status == "exact"
    assert found.not_exercised == ("buffers",)
