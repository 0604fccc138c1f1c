"""What only a real process shows: pipes, signals, closed streams, colour."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "ckpttool"]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

needs_posix = pytest.mark.skipif(os.name != "posix", reason="shells and signals of POSIX")


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script.replace("CKPT", f"'{sys.executable}' -m ckpttool")],
        capture_output=True, text=True, check=False, timeout=60, cwd=cwd, env=ENVIRONMENT,
    )  # fmt: skip


@needs_posix
def test_a_closed_pipe_is_silent_and_keeps_the_verdict(tmp_path: Path) -> None:
    done = shell("set -o pipefail; CKPT explain | true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@needs_posix
@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&- <&- 2>&-"])
def test_closed_streams_are_fine(tiny: Path, closed: str) -> None:
    done = shell(f"CKPT inspect {tiny.name} {closed}", tiny.parent)
    assert (done.returncode, done.stderr) == (0, "")


@needs_posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(tiny: Path) -> None:
    done = shell(f"CKPT inspect {tiny.name} > /dev/full", tiny.parent)
    assert (done.returncode, done.stderr) == (
        2,
        "error: standard output – cannot be written: No space left on device\n",
    )


@needs_posix
def test_ctrl_c_is_one_line_and_130(tmp_path: Path) -> None:
    code = (
        "import os, signal, ckpttool.verbs.explain as e\n"
        "e.explain = lambda rule: os.kill(os.getpid(), signal.SIGINT)\n"
        "from ckpttool.cli import main; main(['explain'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert signal.SIGINT == 2


@needs_posix
def test_colour_on_a_terminal_only_and_never_with_no_color(tiny: Path) -> None:
    pty = pytest.importorskip("pty")

    def on_terminal(**extra: str) -> str:
        parent, child = pty.openpty()
        command = [*COMMAND, "inspect", str(tiny)]
        environment = {**ENVIRONMENT, "TERM": "xterm", **extra}
        environment = {k: v for k, v in environment.items() if k != "NO_COLOR" or k in extra}
        subprocess.run(command, stdout=child, stderr=child, check=True, timeout=60, env=environment)
        os.close(child)
        shown = os.read(parent, 65_536).decode()
        os.close(parent)
        return shown

    assert "\x1b[1m" in on_terminal()
    assert "\x1b[" not in on_terminal(NO_COLOR="1")
    assert "\x1b[" not in on_terminal(TERM="dumb")


def test_an_ascii_terminal_gets_plain_lines(tiny: Path) -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [*COMMAND, "inspect", str(tiny)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, env=environment)
    assert b"-------  -----  -----------" in done.stdout
    assert b"\\u" not in done.stdout


def test_completion_works(tmp_path: Path) -> None:
    environment = {
        **ENVIRONMENT,
        "_CKPTTOOL_COMPLETE": "bash_complete",
        "COMP_WORDS": "ckpttool ver",
        "COMP_CWORD": "1",
    }
    code = "from ckpttool.cli import main; main(prog_name='ckpttool')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.stdout.split() == ["plain,verify"]
