"""Running a training command: traced, in processes that are all gone afterwards, whatever they did."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpttool.determinism.orders import Orders
from ckpttool.determinism.reading import TraceError, read_files
from ckpttool.determinism.trace import Process
from ckpttool.errors import UsageError, printable

INJECT = Path(__file__).parent / "inject"
LIBRARIES = "CKPTTOOL_TRACE_LIBRARIES"
SERVE = "from ckpttool.determinism.launching import serve; serve()"
LAST_LINES = 12
LONGEST = 400  # characters of a line that is told
LEAST = 1 << 16  # bytes of space that a run can do with
_PYTHON = re.compile(r"python(\d+(\.\d+)*)?t?(\.exe)?")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: its exit status (negative: a signal), whether time ran out, its last lines, its trace.

    ``left`` counts the processes that were still there when the command itself had ended; ``seconds`` is what it took.
    """

    status: int
    timed_out: bool
    lines: tuple[str, ...]
    trace: tuple[Process, ...]
    left: int = 0
    seconds: float = 0.0

    @property
    def end(self) -> str:
        """How it ended by itself, in words."""
        last = max((step.number for process in self.trace for step in process.steps), default=0)
        where = f" after step {last}" if last else ""
        if self.status >= 0:
            return f"failed with exit status {self.status}{where}"
        name = signal.Signals(-self.status).name if -self.status in signal.valid_signals() else str(-self.status)
        return f"was ended by {name}{where}"

    @property
    def was_killed_as_ordered(self) -> bool:
        return any(process.ended for process in self.trace)


@dataclass(frozen=True, slots=True)
class Program:
    """A command that is a Python program: its interpreter, then ``script args…`` or ``-m module args…``."""

    interpreter: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A training command with its placeholders: ``{out}`` is a folder of its own for each branch."""

    words: tuple[str, ...]
    resume: tuple[str, ...] = ()
    timeout: float = 600.0  # seconds
    fork: bool = True  # from a process that has imported torch, where the command is a Python program

    def run(self, out: Path, orders: Orders, *, resumed: bool = False, last: str = "") -> Ran:
        """Run once; every process that it started is gone afterwards."""
        with Launchers() as launchers:
            return launchers.run(self, out, orders, resumed=resumed, last=last)


def program_of(words: Sequence[str]) -> Program | None:
    """What Python would run for a command, or None: then it can only be started as it is.

    Understood are ``python script.py …``, ``python -m module …`` and scripts whose first line names an interpreter, as
    installers write them.
    """
    if not words or not hasattr(os, "fork"):
        return None
    first = shutil.which(words[0])
    if first is None:
        return None
    if _PYTHON.fullmatch(Path(first).name):
        rest = list(words[1:])
        while rest and rest[0] in ("-u", "-B"):
            rest.pop(0)
        if len(rest) > 1 and rest[0] == "-m":
            return Program(words[0], tuple(rest))
        return Program(words[0], tuple(rest)) if rest and Path(rest[0]).is_file() else None
    named = _interpreter_of(Path(first))
    return Program(named, (first, *words[1:])) if named else None


def _interpreter_of(script: Path) -> str:
    try:
        with script.open("rb") as file:
            head = file.readline(512).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    words = head[2:].split() if head.startswith("#!") else []
    return words[0] if len(words) == 1 and _PYTHON.fullmatch(Path(words[0]).name) else ""


class Launchers:
    """Helper processes: as many as there are runs at a time, each kept for the next run. All go when this is closed."""

    def __init__(self) -> None:
        self.free: list[_Launcher] = []
        self.made: list[_Launcher] = []
        self.lock = threading.Lock()
        self.closed = False

    def __enter__(self) -> Launchers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything that runs; what is asked for afterwards fails at once."""
        with self.lock:
            self.closed = True
        for launcher in self.made:
            launcher.close()

    def run(
        self, command: Command, out: Path, orders: Orders, *, resumed: bool = False, last: str = "",
        more: tuple[str, ...] = (),
    ) -> Ran:  # fmt: skip
        """Run a command once, with ``more`` words at its end."""
        out.mkdir(parents=True, exist_ok=True)
        words = [*command.words, *(command.resume if resumed else ()), *more]
        filled = [word.replace("{out}", str(out)).replace("{last}", last) for word in words]
        program = program_of(filled) if command.fork else None
        orders.folder.mkdir(parents=True, exist_ok=True)
        before = set(orders.folder.glob("r*.jsonl"))
        output = out.with_name(f"{out.name}.txt")
        order = {
            "words": filled, "program": None if program is None else program.words, "output": str(output),
            "environment": environment(orders), "timeout": command.timeout,
        }  # fmt: skip
        answer = self._answered(order, program)
        lines = _last_lines(output)
        written = set(orders.folder.glob("r*.jsonl")) - before
        try:
            trace = read_files(written) if written else ()
        except TraceError:
            trace = ()
        ran = Ran(answer["status"], answer["timed_out"], lines, trace, answer["left"], answer["seconds"])
        if ran.status and not ran.was_killed_as_ordered and _is_full(out, lines):
            text = f"{printable(str(out.parent))} – no space is left on the disk for runs of the command"
            raise UsageError(f"{text}: choose a folder on another by TMPDIR, or by --keep")
        return ran

    def _answered(self, order: dict[str, Any], program: Program | None) -> Any:
        interpreter = None if program is None else program.interpreter
        with self.lock:
            if self.closed:
                return _FAILED
            found = next((one for one in self.free if one.interpreter == interpreter), None)
            if found is not None:
                self.free.remove(found)
        if found is None:
            found = _Launcher(interpreter)
            with self.lock:
                self.made.append(found)
        answer = found.run(order)
        if answer is None and program is not None:  # that interpreter cannot serve: start it as it is
            return self._answered({**order, "program": None}, None)
        with self.lock:
            self.free.append(found)
        return answer or _FAILED


_FAILED = {"status": 127, "timed_out": False, "left": 0, "seconds": 0.0}


class _Launcher:
    """One helper process; of the command's interpreter, with torch, or of this one, without."""

    def __init__(self, interpreter: str | None) -> None:
        self.interpreter = interpreter
        words = [interpreter or sys.executable, "-c", SERVE, "fork" if interpreter else "plain"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=_paths(), start_new_session=True
        )

    def run(self, order: dict[str, Any]) -> Any:
        """The answer to an order; None where the helper died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write((json.dumps(order) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        """End it, and with it whatever it still runs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        finally:
            self.process.wait()
            self.process.stdout.close()


def _paths() -> dict[str, str]:
    """The caller's environment, with what starts the recorder on the path, and nothing else of this interpreter."""
    parts = [str(INJECT), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(part for part in parts if part)
    found = find_spec("xxhash")
    hashes = {LIBRARIES: str(Path(found.origin).parents[1])} if found is not None and found.origin else {}
    return {**os.environ, **hashes, "PYTHONPATH": path}


def environment(orders: Orders) -> dict[str, str]:
    """What a traced process gets: the caller's, the paths, the orders."""
    return {**_paths(), **orders.to_environment()}


def _is_full(folder: Path, lines: Sequence[str]) -> bool:
    """Whether a run failed for want of space where it works, which says nothing of the command."""
    return shutil.disk_usage(folder).free < LEAST or any(os.strerror(errno.ENOSPC) in line for line in lines)


def _last_lines(output: Path) -> tuple[str, ...]:
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode(errors="replace").splitlines()[-LAST_LINES:]
            return tuple(line if len(line) <= LONGEST else f"{line[:LONGEST]} …" for line in lines)
    except OSError:
        return ()
