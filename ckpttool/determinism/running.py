"""Running a training command: in a process group of its own, traced, with an end for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ckpttool.determinism.orders import Orders
from ckpttool.determinism.trace import Process, TraceError, read_trace

INJECT = Path(__file__).parent / "inject"
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: its exit status (negative: a signal), whether time ran out, its last lines, its trace."""

    status: int
    timed_out: bool
    lines: tuple[str, ...]
    trace: tuple[Process, ...]

    @property
    def was_killed_as_ordered(self) -> bool:
        return any(process.ended for process in self.trace)


@dataclass(frozen=True, slots=True)
class Command:
    """A training command with its placeholders: ``{out}`` is a folder of its own for each branch."""

    words: tuple[str, ...]
    resume: tuple[str, ...] = ()
    timeout: float = 600.0  # seconds

    def run(self, out: Path, orders: Orders, *, resumed: bool = False, last: str = "") -> Ran:
        """Run once; every process that it started is gone afterwards."""
        out.mkdir(parents=True, exist_ok=True)
        words = [*self.words, *(self.resume if resumed else ())]
        filled = [word.replace("{out}", str(out)).replace("{last}", last) for word in words]
        before = len(list(orders.folder.glob("r*.jsonl"))) if orders.folder.exists() else 0
        with tempfile.TemporaryFile() as output:
            status, timed_out = _run(filled, _environment(orders), output.fileno(), self.timeout)
            output.seek(max(0, output.seek(0, os.SEEK_END) - 8192))
            lines = output.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        try:
            trace = read_trace(orders.folder)[before:]
        except TraceError:
            trace = ()
        return Ran(status, timed_out, tuple(lines), trace)


def _environment(orders: Orders) -> dict[str, str]:
    """The caller's, with the recorder on the path and bytes of hashes that repeat."""
    path = os.pathsep.join(part for part in (str(INJECT), os.environ.get("PYTHONPATH", "")) if part)
    package = str(Path(__file__).parents[2])
    found = {**os.environ, **orders.to_environment(), "PYTHONPATH": f"{path}{os.pathsep}{package}"}
    found.setdefault("PYTHONHASHSEED", "0")
    return found


def _run(words: Sequence[str], environment: dict[str, str], output: int, timeout: float) -> tuple[int, bool]:
    try:
        child = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as error:
        os.write(output, f"{words[0]}: {error.strerror}\n".encode())
        return 127, False
    try:
        return child.wait(timeout), False
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL, True
    finally:
        end_group(child.pid)
        child.wait()


def end_group(leader: int) -> None:
    """Kill every process of a group; those that left it are found by their session where the system tells."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and _session(entry) == leader:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(entry.name), signal.SIGKILL)


def _session(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return -1
