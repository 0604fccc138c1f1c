"""How work is run: which executor, and how often progress is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from ckpttool.pool import workers

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

INLINE = 8 << 20
"""Bytes up to which one thread does the work itself."""

_INTERVAL = 0.1
"""Seconds between two calls of a progress callback."""


def pool(executor: Executor | None, nbytes: int) -> AbstractContextManager[Executor | None]:
    """The executor to use, closed at the end only if it is ours; None where threads would not pay."""
    if executor is not None or nbytes <= INLINE or workers() == 1:
        return nullcontext(executor)
    return ThreadPoolExecutor(workers(), thread_name_prefix="measure")


def throttled(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A function that adds bytes and calls ``progress`` now and then, and at the end for certain."""
    done, last = 0, -_INTERVAL

    def add(nbytes: int) -> None:
        nonlocal done, last
        done += nbytes
        now = time.monotonic()
        if progress is not None and (now - last >= _INTERVAL or done >= total):
            last = now
            progress(done, total)

    return add
