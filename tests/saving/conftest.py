"""Servers that have imported torch already: each save that is to fail runs in a fork of one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = """
import os, random, signal, sys, time
import torch
import ckpttool

EVENTS = {{"open", "os.rename", "os.remove", "os.link", "os.truncate", "os.listdir", "os.scandir",
          "os.mkdir", "fcntl.flock"}}
left = None

def hook(event, args):
    global left
    if left is not None and event in EVENTS:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)  # a forked child has none of its parent's threads, and would wait for them

{save}

save()  # whatever is imported late is imported now
took = 1e9
for _ in range(5):
    start = time.perf_counter()
    save()
    took = min(took, time.perf_counter() - start)
sys.addaudithook(hook)
print(took, flush=True)
for line in sys.stdin:
    how, number = line.split()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if how == "event":
            left = int(number)
        if how == "time":
            signal.setitimer(signal.ITIMER_REAL, float(number))  # SIGALRM ends it as SIGKILL does: no handler
        if how == "term":
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            signal.setitimer(signal.ITIMER_REAL, float(number))
        save()
        left = None
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Server:
    """Runs one save after the other, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.took = float(self._answer())
        self.count = 0

    def save(self, how: str, number: float) -> int:
        """The exit code of a save that is killed at an event (``event``) or after seconds (``time``, ``term``)."""
        assert self.process.stdin is not None
        self.count += 1
        print(how, number, file=self.process.stdin, flush=True)
        return int(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    """Starts a server: ``server(code of save(), *arguments)``."""
    running: list[subprocess.Popen[str]] = []

    def start(save: str, *arguments: str | Path) -> Server:
        command = [sys.executable, "-c", SERVER.format(save=save), *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return Server(process)

    yield start
    for process in running:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        process.wait()
