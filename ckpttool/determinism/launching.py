"""A helper process that starts training commands, waits for them, and leaves none of their processes behind.

It runs in the command's own interpreter. Where the command is a Python program it imports torch once, never computes,
and forks a fresh child for every run: importing torch is most of what a short run costs. Orders and answers are lines
of JSON; the end of the input ends everything that runs. Orphans come to this process (Linux), so a run's end finds
them wherever they went. Standard library only, but for a part of this package that needs no more.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckpttool.determinism.importing import record, when_imported
from ckpttool.determinism.printed import Printed

PRELOADED = (
    "torch",
    "torch._dynamo",  # what optimizers import when they are made
    "torch._inductor.config",
    "torch.utils.data",
    "ckpttool.determinism.recorder",
)
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def serve() -> None:
    """Answer orders until the input ends. A forked child returns from here too, by ``SystemExit``."""
    answers = os.dup(1)
    os.dup2(2, 1)
    _adopt_orphans()
    if sys.argv[1:] == ["fork"]:
        for name in PRELOADED:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()
    for line in _lines():
        order = json.loads(line)
        answer = _run(order, answers)
        os.write(answers, (json.dumps(answer) + "\n").encode())


def _lines() -> Any:
    waiting = b""
    while block := os.read(0, 1 << 16):
        *whole, waiting = (waiting + block).split(b"\n")
        yield from whole


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


# --- one run -------------------------------------------------------------------------------------------------------


def _run(order: Mapping[str, Any], answers: int) -> dict[str, Any]:
    start = time.monotonic()
    printed = Printed(order["output"])
    try:
        pid = _fork(order, printed, answers) if order.get("program") else _spawn(order, printed)
    except OSError as error:
        printed.note(f"{order['words'][0]}: {error.strerror}\n")
        os.close(printed.inlet)
        printed.close()
        return {"status": 127, "timed_out": False, "left": 0, "seconds": 0.0}
    os.close(printed.inlet)
    ended = _wait(pid, order["timeout"], printed)
    status = -signal.SIGKILL
    left = 0
    if ended:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        left = _end_all(pid)
    else:
        _end_all(pid)
    printed.close()
    seconds = time.monotonic() - start
    return {"status": status, "timed_out": not ended, "left": left, "seconds": seconds}


def _spawn(order: Mapping[str, Any], printed: Printed) -> int:
    child = subprocess.Popen(
        order["words"],
        env=order["environment"],
        stdin=subprocess.DEVNULL,
        stdout=printed.inlet,
        stderr=printed.inlet,
        start_new_session=True,
    )
    child.returncode = 0  # it is waited for by its id: nothing is left for this object to do
    return child.pid


def _fork(order: Mapping[str, Any], printed: Printed, answers: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.close(answers)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (1, 2):
        os.dup2(printed.inlet, number)
    for handle in (nothing, printed.inlet, printed.outlet, printed.file):
        os.close(handle)
    os.environ.clear()
    os.environ.update(order["environment"])
    raise SystemExit(_become(order["program"]))


def _become(words: list[str]) -> int | str | None:
    """Be the program ``script args…`` or ``-m module args…``, as ``python`` would be; its exit status."""
    _seed_anew()
    is_module = words[0] == "-m"
    script, *arguments = words[1:] if is_module else words
    sys.argv = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd()) if is_module else str(Path(script).resolve().parent)
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __spec__=None, __cached__=None)
    sys.modules["__main__"] = main
    try:
        when_imported("torch", record)
        if is_module:
            runpy._run_module_as_main(script)  # type: ignore[attr-defined] # what `python -m` itself calls
        else:
            source = Path(script).read_bytes()
            exec(compile(source, script, "exec"), main.__dict__)  # noqa: S102 - the user's own program
    except SystemExit as stopped:
        return stopped.code
    except BaseException as error:
        if error.__traceback__ is not None:  # whose first frame is this one, and none of the program's
            error = error.with_traceback(error.__traceback__.tb_next)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _seed_anew() -> None:
    """Generators that a fresh process would seed from the system are; Python's own sees to itself after a fork."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _wait(pid: int, timeout: float, printed: Printed) -> bool:
    """Whether a child ended by itself in time; the end of the input ends everything at once."""
    end = time.monotonic() + timeout
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    except OSError:
        handle = -1
    watched = [0, printed.outlet] if handle < 0 else [0, printed.outlet, handle]
    try:
        while (rest := end - time.monotonic()) > 0:
            ready = select.select(watched, [], [], min(rest, 0.02) if handle < 0 else rest)[0]
            if 0 in ready:  # nobody sends a second order before the first is answered
                _end_all(pid)
                raise SystemExit(0)
            if printed.outlet in ready and not printed.take():
                watched.remove(printed.outlet)
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        return False
    finally:
        if handle >= 0:
            os.close(handle)


def _end_all(leader: int) -> int:
    """Kill whatever a run has left, and wait until it is gone; how many processes that were."""
    seen: set[int] = set()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    while found := _descendants(os.getpid()):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        seen |= found - {leader}
        _reap()
        time.sleep(0.002)
    _reap()
    return len(seen)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants(root: int) -> set[int]:
    """All processes that come from one, by the system's table; none where there is no such table."""
    parents: dict[int, int] = {}
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    grown = {root}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown} - found
        found |= grown
    return found
