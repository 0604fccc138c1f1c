"""Commands of another interpreter, which has nothing of this one, and how the ends of commands are told."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from ckpttool.determinism.orders import Orders
from ckpttool.determinism.running import Command, Ran

ALONE = """
import importlib.util, sys
import ckpttool.determinism.trace, xxhash  # what recording needs is there
for name in ("click", "numpy", "pytest", "torch"):
    assert importlib.util.find_spec(name) is None, name
print(sys.prefix)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter without any package."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place, with_pip=False, symlinks=True)
    return str(place / "bin" / "python")


def ran(tmp_path: Path, source: str, interpreter: str = sys.executable, *, fork: bool = True) -> Ran:
    script = tmp_path / "program.py"
    script.write_text(source)
    words = (interpreter, str(script)) if fork else (interpreter, "-c", source)
    return Command(words, timeout=60, fork=fork).run(tmp_path / "out", Orders(tmp_path / "trace"))


@pytest.mark.parametrize("fork", [True, False])
def test_nothing_of_this_interpreter_comes_into_another(tmp_path: Path, bare: str, fork: bool) -> None:
    found = ran(tmp_path, ALONE, bare, fork=fork)
    assert (found.status, found.lines) == (0, (str(Path(bare).parents[1]),)), found.lines


def test_where_recording_cannot_start_the_command_ends_and_says_so(tmp_path: Path, bare: str) -> None:
    (tmp_path / "torch.py").write_text("")
    found = ran(tmp_path, "import torch\nprint('trained')", bare)
    assert found.status == 1
    assert f"ckpttool cannot record in {bare}" in found.lines[-1]
    assert "pip install ckpttool" in found.lines[-1]


def test_an_error_shows_the_frames_of_the_program_alone(tmp_path: Path, bare: str) -> None:
    found = ran(tmp_path, "def f(): raise ValueError('of mine')\nf()", bare)
    assert found.end == "failed with exit status 1"
    assert found.lines[-1] == "ValueError: of mine"
    assert [line for line in found.lines if "File" in line and "program.py" not in line] == []


def test_a_programs_own_hook_for_errors_is_called(tmp_path: Path, bare: str) -> None:
    found = ran(tmp_path, "import sys\nsys.excepthook = lambda *_: print('caught')\nraise ValueError", bare)
    assert found.lines == ("caught",)


def test_a_signal_is_told_by_its_name(tmp_path: Path, bare: str) -> None:
    found = ran(tmp_path, "import os\nos.write(1, b'x' * 10**6)\nos.kill(os.getpid(), 11)", bare)
    assert found.end == "was ended by SIGSEGV"
    assert max(map(len, found.lines)) < 500


def test_of_what_is_printed_without_end_the_beginning_and_the_end_are_kept(tmp_path: Path, bare: str) -> None:
    found = ran(tmp_path, "print('first')\nfor _ in range(30): print('x' * 10**6)\nprint('last')", bare)
    assert found.lines[-1] == "last"
    kept = (tmp_path / "out.txt").read_bytes()
    assert kept.startswith(b"first\n")
    assert b"bytes left out" in kept
    assert len(kept) < 10 << 20


def test_what_a_process_left_behind_prints_keeps_nobody_waiting(tmp_path: Path, bare: str) -> None:
    source = "import os, time\nif os.fork() == 0:\n os.setsid()\n time.sleep(60)\nprint('done', flush=True)"
    found = ran(tmp_path, source, bare)
    assert (found.status, found.lines, found.left) == (0, ("done",), 1)
    assert found.seconds < 30
