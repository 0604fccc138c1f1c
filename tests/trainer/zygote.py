"""A process that has imported torch and never computed: it forks one trainer for each line of JSON that it reads.

``{"argv": [...], "output": path}`` starts one and answers its process id. With ``"at": [dotted.name, n]`` the n-th call
of that function first does what ``"do"`` says: a signal by its name, ``raise``, or from then on ``ENOSPC``. ``"env"``
are variables of the environment, by which several find each other.
``{"wait": pid}`` answers the exit status, negative for a signal.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch._dynamo  # what optimizers import when they are made: a second, which children need not spend
import torch._inductor.config
import torch.utils.data  # noqa: F401

import ckpttool.cli.train
import ckpttool.trainer.train  # noqa: F401
from ckpttool.cli import main


def strike(place: str, calls: int, do: str) -> None:
    """Let the n-th call of a function end, signal or fail the process."""
    module, _, name = place.rpartition(".")
    owner: Any
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:
        parent, _, cls = module.rpartition(".")
        owner = getattr(importlib.import_module(parent), cls)
    original, left = getattr(owner, name), calls

    def struck(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and do == "raise":
            raise RuntimeError("struck")
        if left <= 0 and do == "ENOSPC":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if left == 0:
            os.kill(os.getpid(), getattr(signal, do))
        return original(*arguments, **named)

    setattr(owner, name, struck)


def child(order: dict[str, Any]) -> int:
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if "env" in order:
        os.environ.update(order["env"])
        faulthandler.dump_traceback_later(180, exit=True)  # one of several that waits for ever fails the test
    if "at" in order:
        strike(*order["at"], order["do"])
    try:
        main(["train", *order["argv"]])
        return 0
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99


def serve() -> None:
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            status = child(order)
            sys.stdout.flush()
            os._exit(status)
        print(pid, flush=True)
        Path(order["output"]).touch()


serve()
