"""One run of a training command, recorded and otherwise left alone: a trace to be compared elsewhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ckpttool.determinism.orders import Orders
from ckpttool.determinism.reading import TraceError, read_files
from ckpttool.determinism.running import environment
from ckpttool.determinism.trace import steps_in
from ckpttool.errors import UsageError, printable


def record(words: Sequence[str], folder: Path, *, steps: int | None = None, full: bool = False) -> int:
    """Run a command with this process's own input and output, and write its trace to ``folder``.

    The command's exit status; 128 and the signal's number where a signal ended it, as shells say it. With ``steps`` it
    is killed after that step, and the status is 0 where it came so far. ``full`` records single tensors at every step:
    a larger trace, and a slower run. Raises ``UsageError`` for a folder with a trace in it, for a command that cannot
    be started, and where no optimizer step was seen.

    Of a launcher (``torchrun``) all processes write to the one folder. Started by a launcher itself, once for each of
    its processes, this answers for its own alone.
    """
    mine = f"r{os.environ.get('RANK', '*')}-*.jsonl"
    if any(folder.glob(mine)):
        raise UsageError(
            f"{printable(str(folder))} – there is a trace here already: name a folder of its own for each run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    orders = Orders(folder.resolve(), kill_at=steps, full=full)
    try:
        child = subprocess.Popen(words, env=environment(orders))
    except OSError as error:
        raise UsageError(f"{printable(words[0])} – {(error.strerror or str(error)).lower()}") from error
    status = _ended(child)
    try:
        reached = steps_in(read_files(set(folder.glob(mine))))
    except (TraceError, ValueError):
        reached = 0
    if not reached:
        text = f"no optimizer step was seen (the command ended with {status})"
        raise UsageError(f"{text}: does it train with torch, in an interpreter that can import ckpttool?")
    return 0 if steps is not None and reached >= steps else status


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Wait; an interruption from the keyboard reaches the command too, and how it ends is its own affair."""
    while True:
        try:
            status = child.wait()
            break
        except KeyboardInterrupt:
            continue
    return 128 - status if status < 0 else status
