"""A few steps that a signal must not come between: it is kept until they are done."""

from __future__ import annotations

import threading
from types import TracebackType


class _Shielded(threading.local):
    """How many blocks this thread is in, and what waits for their end."""

    depth = 0
    waiting: BaseException | None = None


_here = _Shielded()


class shielded:  # noqa: N801 - reads as a word of the language
    """A block in which ``raise_or_wait`` waits. No generator: fewer steps of Python in which a signal could come."""

    def __enter__(self) -> None:
        _here.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.depth -= 1
        if not _here.depth and _here.waiting is not None:
            found, _here.waiting = _here.waiting, None
            raise found


def raise_or_wait(error: BaseException) -> None:
    """Raise from a signal's handler, at once or at the end of the block that it came in."""
    if not _here.depth:
        raise error
    _here.waiting = error
