"""What a command prints, taken through a pipe into a file that does not grow without end. Standard library only."""

from __future__ import annotations

import os
from typing import Final

MOST: Final = 8 << 20
"""Bytes of the beginning that are kept; of what comes after them the last ones are."""

TAIL: Final = 64 << 10
BLOCK: Final = 64 << 10


class Printed:
    """The reading end of a command's output, and the file that it goes to; ``inlet`` is for the command.

    A file that cannot be written, as on a full disk, loses lines and nothing else. Raises ``OSError`` where it cannot
    be made.
    """

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self.outlet, self.inlet = os.pipe()
        os.set_blocking(self.outlet, False)
        self.taken = 0
        self.tail = b""

    def take(self) -> bool:
        """Take what is there, at most a block; whether more may come."""
        try:
            block = os.read(self.outlet, BLOCK)
        except BlockingIOError:
            return True
        head = block[: max(0, MOST - self.taken)]
        self._write(head)
        self.tail = (self.tail + block[len(head) :])[-TAIL:]
        self.taken += len(block)
        return bool(block)

    def close(self) -> None:
        """Take what is left in the pipe, and write the end of what was left out; when no process writes any more."""
        before = -1
        while before != self.taken:
            before = self.taken
            self.take()
        if self.tail:
            left = self.taken - MOST - len(self.tail)
            self._write(f"\n[{left:,} bytes left out]\n".encode() if left else b"")
            self._write(self.tail)
        for handle in (self.outlet, self.file):
            os.close(handle)

    def note(self, text: str) -> None:
        """A line of the tool's own."""
        self._write(text.encode())

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self.file, data) :]
        except OSError:
            pass
