"""The errors that a user can see, and the exit codes, in one place.

A bad file is a result, never one of these: they mean that the work could not be done at all.
"""

from __future__ import annotations

import os
from enum import IntEnum


class ExitCode(IntEnum):
    """What a finished command says to the shell; of several targets the highest wins."""

    OK = 0
    FINDINGS = 1
    IMPOSSIBLE = 2


class CkpttoolError(Exception):
    """The root of every error that this package raises on purpose; shown as one line, exit code 2."""

    exit_code = ExitCode.IMPOSSIBLE

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross from one process to another, whatever their constructors make the message of."""
        return _again, (type(self), self.args, dict(self.__dict__))


def _again(kind: type[CkpttoolError], args: tuple[object, ...], known: dict[str, object]) -> CkpttoolError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(known)
    return error


class Unreadable(CkpttoolError):
    """The path cannot be opened or read: missing, a directory, a device, no permission, a symlink loop."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{printable(where)} – {why}")
        self.where = where
        self.why = why


class WriteFailed(CkpttoolError):
    """An output cannot be written; what was there before is as it was."""

    def __init__(self, where: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{printable(os.fspath(where))} – {why}")
        self.where = os.fspath(where)
        self.why = why


class Damaged(CkpttoolError):
    """A checkpoint whose bytes are not what was written is not loaded."""

    def __init__(self, where: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{printable(os.fspath(where))} – {why}")


class Unsafe(CkpttoolError):
    """A checkpoint that asks for more than data is not loaded."""

    def __init__(self, where: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{printable(os.fspath(where))} – {why}")


class Locked(CkpttoolError):
    """Another process writes to the same folder of checkpoints."""


class MissingExtra(CkpttoolError):
    """An optional part of the package is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}: pip install 'ckpttool[{extra}]'")


class UsageError(CkpttoolError):
    """An argument or a configuration file that makes no sense."""


def printable(text: str) -> str:
    """Escape what a terminal or a log could act on; names that come from a file pass through here.

    Control characters, bidirectional overrides and lone surrogates become ``\\x1b``-style escapes;
    letters of any script stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
