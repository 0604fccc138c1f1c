"""Kills inside saves, SIGTERM, and everything that a command may do wrong: each ends in one clear verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckpttool.determinism.check import Verdict, Wishes, check
from ckpttool.determinism.running import Command, program_of

PRETEND = str(Path(__file__).with_name("pretend.py"))
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")


def verdict(work: Path, mode: str, *more: str, timeout: float = 60, **wishes: Any) -> Verdict:
    command = Command((sys.executable, PRETEND, "{out}", mode, *more), timeout=timeout, fork=False)
    given = {"steps": 12, "cuts": 1, "power": False, "jobs": 2, "grace": 0.5, **wishes}
    return check(command, Wishes(**given), work)


def level(found: Verdict, name: str) -> str:
    return next(level.state for level in found.levels if level.name == name)


def test_what_is_saved_atomically_survives_every_kill(tmp_path: Path) -> None:
    found = verdict(tmp_path, "good", kills=8)
    assert found.status == "exact", found.message
    kinds = {b.kill.how for b in found.branches}
    assert kinds == {"step", "byte", "event", "sigterm", "again", "early"}
    assert level(found, "recovery") == "exact"
    assert {level.name: level.state for level in found.levels if level.name != "recovery"} == {
        "boundary": "exact", "data": "exact", "trajectory": "exact", "artifact": "exact",
    }  # fmt: skip
    torn = next(b for b in found.branches if b.kill.how == "byte")
    assert torn.ran[0].status == -signal.SIGXFSZ
    struck = [b.ran[0].trace[0].ended for b in found.branches if b.kill.how == "event"]
    assert struck
    assert all(text.startswith("killed") for text in struck)


def test_a_torn_file_that_stops_the_next_start_is_told(tmp_path: Path) -> None:
    found = verdict(tmp_path, "in-place", kills=1)
    assert found.status == "recovery-failed"
    (bad,) = [b for b in found.branches if b.failure]
    assert bad.refused
    assert "at byte" in found.message
    assert "JSONDecodeError" in "\n".join(found.lines)


@pytest.mark.slow
def test_a_torn_file_that_is_gone_on_from_in_silence_is_worse(tmp_path: Path) -> None:
    found = verdict(tmp_path, "in-place-silent", kills=2)
    assert found.status == "recovery-failed"
    bad = [b for b in found.branches if b.broken]
    assert bad
    assert not any(b.refused for b in bad)
    assert "goes on" in found.message or "started from the beginning" in found.message


def test_a_save_that_deletes_the_last_one_first_loses_it(tmp_path: Path) -> None:
    found = verdict(tmp_path, "removes-first", kills=4)
    assert found.status == "recovery-failed", found.message
    assert level(found, "trajectory") == "exact"
    assert level(found, "recovery") == "broken"


@pytest.mark.slow
def test_the_level_that_is_asked_for_decides(tmp_path: Path) -> None:
    found = verdict(tmp_path, "in-place", kills=1, level="artifact")
    assert found.status == "exact"
    assert level(found, "recovery") == "broken"


@pytest.mark.slow
def test_sigterm_heeded_and_not(tmp_path: Path) -> None:
    heeded = verdict(tmp_path / "a", "heeds-sigterm", kills=3)
    ignored = verdict(tmp_path / "b", "ignores-sigterm", kills=3)
    assert (heeded.status, ignored.status) == ("exact", "exact"), (heeded.message, ignored.message)
    told = [next(b.notes for b in v.branches if b.kill.how == "sigterm") for v in (heeded, ignored)]
    assert told[0] == ("on SIGTERM it saved and ended by itself",)
    assert "was not heeded: 4 more steps" in told[1][0]


def test_a_second_sigterm_strikes_the_save_that_follows_the_first(tmp_path: Path) -> None:
    found = verdict(tmp_path, "heeds-one-sigterm", kills=7)
    assert found.status == "exact", found.message
    branch = next(b for b in found.branches if b.kill.how == "again")
    assert branch.ran[0].status == -signal.SIGTERM
    assert branch.notes == ("on SIGTERM it saved and ended by itself", "the second one struck its save")
    assert branch.ran[1].trace[0].base == 4, "the save of step 8 was struck before it was published"


@pytest.mark.slow
def test_a_handler_that_saves_and_is_hit_again_is_seen(tmp_path: Path) -> None:
    found = verdict(tmp_path, "saves-in-handler", kills=7)
    branch = next(b for b in found.branches if b.kill.how == "again")
    assert branch.ran[0].trace[0].signals == 2
    assert found.status == "exact", found.message


POWER = {
    "durable": ("exact", ""),
    "good": ("recovery-failed", "last.json was never flushed to the disk, which costs the checkpoint of step 8"),
    "unflushed-folder": ("recovery-failed", "the folder of last.json was never flushed to the disk, which costs"),
}


@pytest.mark.parametrize("mode", POWER)
def test_a_power_cut_costs_what_was_not_flushed(tmp_path: Path, mode: str) -> None:
    found = verdict(tmp_path, mode, power_cuts=1)
    status, text = POWER[mode]
    assert (found.status, level(found, "recovery")) == (status, "exact" if mode == "durable" else "broken")
    assert text in found.message
    failure = next(b.failure for b in found.branches if b.kill.how == "power")
    ends = {"durable": "", "good": "exit status 1", "unflushed-folder": "from step 4, and step 8 had been saved"}
    assert failure.endswith(ends[mode])


EXPECTED = {
    "never-saves": ("recovery-failed", "nothing was saved before step 12"),
    "older": ("recovery-failed", "went on from step 4, and step 8 had been saved"),
    "never-resumes": ("recovery-failed", "started from the beginning"),
    "binary": ("command-failed", "exit status 1"),
    "drifts": ("diverged", "step 11"),
}


@pytest.mark.parametrize("mode", EXPECTED)
def test_what_is_wrong_is_told(tmp_path: Path, mode: str) -> None:
    found = verdict(tmp_path, mode, prove=False, cuts=5 if mode == "older" else 1)
    status, text = EXPECTED[mode]
    assert found.status == status
    assert text in found.message
    if mode == "binary":
        assert any("broke" in line for line in found.lines)


@pytest.mark.slow
def test_a_run_that_goes_on_after_the_end_is_told(tmp_path: Path) -> None:
    found = verdict(tmp_path, "longer", steps=40, prove=False)
    assert found.status == "diverged"
    assert "ends after step 20, and the uninterrupted one after step 16" in found.message
    exact = verdict(tmp_path / "good", "good", steps=40)
    assert exact.status == "exact"
    assert next(x.basis for x in exact.levels if x.name == "artifact").endswith("the last one among them")


@pytest.mark.slow
def test_a_resume_that_hangs_is_ended(tmp_path: Path) -> None:
    found = verdict(tmp_path, "resume-hangs", timeout=2)
    assert found.status == "recovery-failed"
    assert "did not end within 2 s" in found.message


def test_children_that_left_the_session_are_found(tmp_path: Path) -> None:
    mark = f"ckpttool-{os.getpid()}-{time.time_ns()}"
    found = verdict(tmp_path, "leaves-children", mark, steps=40)
    assert found.status == "exact", found.message
    assert any("left 1 of its processes behind" in note for note in found.notes)
    assert alive(mark) == []


@pytest.mark.slow
def test_all_is_gone_when_the_check_itself_is_killed(tmp_path: Path) -> None:
    mark = f"ckpttool-{os.getpid()}-{time.time_ns()}"
    code = f"import time; time.sleep(600) # {mark}"
    pid = os.fork()
    if pid == 0:
        Command((sys.executable, "-c", code), fork=False).run(tmp_path / "out", orders(tmp_path))
        os._exit(0)
    until(lambda: alive(mark) != [])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(lambda: alive(mark) == [])


def orders(work: Path) -> Any:
    from ckpttool.determinism.orders import Orders

    return Orders(work / "trace")


def until(done: Any) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(mark: str) -> list[str]:
    """The processes with a mark in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_the_same_answer_every_time(tmp_path: Path) -> None:
    one, two = (verdict(tmp_path / name, "drifts", cuts=4, kills=4, prove=False) for name in "ab")
    assert plain(one) == plain(two)


def plain(found: Verdict) -> Verdict:
    """A verdict without what holds times and places."""
    branches = tuple(replace(b, ran=()) for b in found.branches)
    return replace(found, branches=branches, saves=())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("python3", "-c", "pass"), None),
        (("python3", "-m", "train", "--x"), ("-m", "train", "--x")),
        (("python3", "-u", PRETEND, "a"), (PRETEND, "a")),
        (("python3", "-O", PRETEND), None),
        (("/nonexistent/python3", PRETEND), None),
        (("true",), None),
    ],
)
def test_what_can_be_forked(words: tuple[str, ...], wanted: tuple[str, ...] | None) -> None:
    found = program_of(words)
    assert (None if found is None else found.words) == wanted


@pytest.mark.slow
def test_ctrl_c_ends_a_check_and_all_that_it_runs(tmp_path: Path) -> None:
    mark = f"ckpttool-{os.getpid()}-{time.time_ns()}"
    words = [sys.executable, "-m", "ckpttool", "determinism", "check", "--steps", "12", "--jobs", "2", "--no-fork"]
    words += ["--cuts", "40", "--keep", str(tmp_path / "work"), "--", sys.executable, PRETEND, "{out}", "slow", mark]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    until(lambda: alive(mark) != [] and any(tmp_path.glob("work/cut-*/trace/*.jsonl")))
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert time.monotonic() - start < 20
    assert child.returncode == 130
    until(lambda: alive(mark) == [])


def test_orders_that_are_long_go_by_way_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ({"a" * 32: 3}, {f"{n:032x}": n for n in range(5000)}):
        given = replace(orders(tmp_path), known=known, snapshots=(4,))
        for name, value in given.to_environment().items():
            assert len(value) < 100_000
            monkeypatch.setenv(name, value)
        assert type(given).from_environment() == given
