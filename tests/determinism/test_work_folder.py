"""The folder that a check works in: what is left of it, and what it has to be."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ckpttool.cli import main
from ckpttool.determinism import running
from ckpttool.determinism.check import Wishes, check
from ckpttool.determinism.running import Command
from ckpttool.errors import UsageError

PRETEND = str(Path(__file__).with_name("pretend.py"))
TRAIN = (sys.executable, PRETEND, "{out}")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    words = ["determinism", "check", "--steps", "9", "--keep", str(tmp_path), "--", "true"]
    found = CliRunner().invoke(main, words, prog_name="ckpttool")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "there is something in it already" in found.stderr


@pytest.mark.parametrize("tidy", [True, False])
def test_what_branches_wrote_is_removed_where_nothing_is_kept(tmp_path: Path, tidy: bool) -> None:
    """Twenty cuts of a large model would fill the disk."""
    wishes = Wishes(12, cuts=1, power=False, tidy=tidy)
    found = check(Command((*TRAIN, "good"), timeout=60, fork=False), wishes, tmp_path)
    assert found.status == "exact", found.message
    kept = [place.parent.name for place in tmp_path.glob("*/out")]
    assert sorted(kept) == (["again", "baseline"] if tidy else ["again", "baseline", "cut-5"])


def test_a_full_disk_is_no_verdict_on_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LEAST", 1 << 60)
    with pytest.raises(UsageError, match="no space is left on the disk"):
        check(Command((*TRAIN, "binary"), timeout=60, fork=False), Wishes(12, cuts=1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_check_without_a_trace(tmp_path: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "ckpttool", "determinism", "check", "--steps", "12", "--no-fork", "--cuts", "40"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    restore = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731 - whatever this process ignores
    child = subprocess.Popen([*words, "--", *TRAIN, "slow"], env=environment, preexec_fn=restore)
    end = time.monotonic() + 30
    while not list(tmp_path.glob("*/cut-*/trace/r0-1.jsonl")):
        assert time.monotonic() < end
        time.sleep(0.02)
    child.send_signal(number)
    assert child.wait(30) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_who_never_resumes_is_told_how_to_name_the_option(tmp_path: Path) -> None:
    command = Command((*TRAIN, "never-resumes"), timeout=60, fork=False)
    found = check(command, Wishes(12, cuts=1, power=False, prove=False), tmp_path)
    assert found.status == "recovery-failed"
    assert found.message.endswith("name that in --resume-arg")


@pytest.mark.parametrize(
    "words", [["--cut", "9"], ["--cut", "5,4"], ["--cut", "x"], ["--cut", "0"], ["--resume-arg", "a 'b"]]
)
def test_options_that_cannot_be_are_refused(words: list[str]) -> None:
    found = CliRunner().invoke(
        main, ["determinism", "check", "--steps", "9", *words, "--", "true"], prog_name="ckpttool"
    )
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith("error: ")


def test_the_answer_ends_with_what_repeats_it(tmp_path: Path) -> None:
    """And that tries the cut that was named, alone."""
    check_of = ["determinism", "check", "--format", "json", "--no-fork", "--no-power", "--steps", "12", "--kills", "0"]
    words = [*check_of, "--cut", "6", "--cut", "5,9", "--resume-arg", "--on 'a b'", "--", *TRAIN, "never-resumes"]
    found = json.loads(CliRunner().invoke(main, words, prog_name="ckpttool").stdout)
    assert [cut["steps"] for cut in found["cuts"]] == [[6], [5, 9]]
    again = shlex.split(found["reproduce"])
    assert again[again.index("--resume-arg") + 1] == "--on 'a b'"
    assert again[again.index("--cut") + 1] == "5,9"
    assert again[again.index("--") + 1 :] == [*TRAIN, "never-resumes"]
    again[again.index("--steps") : again.index("--steps")] = ["--format", "json"]
    once_more = CliRunner().invoke(main, again[1:], prog_name="ckpttool")
    assert json.loads(once_more.stdout)["message"] == found["message"]
