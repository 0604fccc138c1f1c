"""The whole check on real processes: what is exact is silent, what is broken is named."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ckpttool.determinism.check import Verdict, Wishes, check
from ckpttool.determinism.running import Command, Launchers

SCRIPT = str(Path(__file__).with_name("script.py"))


Checked: TypeAlias = Callable[..., Verdict]


@pytest.fixture(scope="module")
def launchers() -> Iterator[Launchers]:
    with Launchers() as found:
        yield found


@pytest.fixture
def verdict(launchers: Launchers, tmp_path: Path) -> Checked:
    """The check of a mode of the script; importing torch is spent once."""
    pytest.importorskip("torch")

    def run(mode: str, **wishes: Any) -> Verdict:
        command = Command((sys.executable, SCRIPT, "{out}", mode), timeout=120)
        given = {"steps": 12, "cuts": 1, "power": False, "prove": False, "shrink": False, **wishes}
        return check(command, Wishes(**given), tmp_path, launchers=launchers)

    return run


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
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {sleep!r}]); time.sleep(600)"
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


def test_an_exact_script_is_exact(verdict: Checked) -> None:
    found = verdict("good")
    assert found.status == "exact", found.message


@pytest.mark.slow
def test_a_resume_of_a_resume_is_exact_too(verdict: Checked) -> None:
    found = verdict("good", cuts=6, kills=6)
    assert found.status == "exact", found.message
    assert any(len(b.cut) == 2 for b in found.branches)
    assert {b.kill.how for b in found.branches} == {"step", "byte", "event", "sigterm", "early"}
    assert {level.state for level in found.levels} == {"exact"}


@pytest.mark.slow
def test_a_lost_optimizer_is_named_and_proved(verdict: Checked) -> None:
    found = verdict("no-optimizer", prove=True, shrink=True)
    assert found.status == "diverged"
    assert found.causes[0].name == "optimizer-lost"
    assert found.departure is not None
    assert (found.departure.step, found.departure.loss_step) == (5, 6)
    assert found.branches[0].proof == ("optimizer",)
    assert found.smallest == "the smallest cut that fails: after step 5"
    assert found.detail is not None
    assert found.detail.where == "right after the load of step 4"
    assert found.detail.element is not None
    assert found.detail.element.two == "absent"


@pytest.mark.slow
def test_the_first_element_is_told_with_its_distance_and_whose_it_is(verdict: Checked) -> None:
    found = verdict("exchanged", prove=True)
    assert found.status == "diverged"
    assert found.causes[0].name == "optimizer-permuted"
    assert found.detail is not None
    assert found.detail.element is not None
    assert found.detail.element.ulps
    assert "optimizer.exp_avg.3.weight equals the saved optimizer.exp_avg.5.weight" in found.detail.equals


@pytest.mark.slow
def test_a_save_that_moves_weights_is_told_without_a_kill(verdict: Checked) -> None:
    found = verdict("save-moves")
    assert (found.status, found.causes[0].name) == ("diverged", "saving-changes-training")
    assert found.branches == ()


EXPECTED = {
    "no-rng": ("diverged", "rng-reseeded"),
    "shifted": ("diverged", "data-shifted"),
    "unseeded": ("not-reproducible", ""),
    "never-saves": ("recovery-failed", ""),
    "resume-fails": ("recovery-failed", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", EXPECTED)
def test_what_is_wrong_is_told(verdict: Checked, mode: str) -> None:
    found = verdict(mode)
    assert (found.status, found.causes[0].name if found.causes else "") == EXPECTED[mode], found.message
    if mode == "resume-fails":
        assert "does not fit" in "\n".join(found.lines)


@pytest.mark.slow
def test_parts_that_training_does_not_feel_are_told(verdict: Checked) -> None:
    found = verdict("good", power=True)
    assert found.status == "exact"
    assert found.not_exercised == ("buffers",)
