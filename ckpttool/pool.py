"""Parallelism as an argument: any ``concurrent.futures.Executor``, order kept, few items under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers() -> int:
    """The number of processors that this process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def ordered_map(
    fn: Callable[[Item], Result], items: Iterable[Item], executor: Executor | None = None, *, window: int | None = None
) -> Iterator[Result]:
    """Yield ``fn(item)`` in the order of ``items``, computed by ``executor``; in this thread if it is None.

    At most ``window`` items (default: four for each processor) are under way, so an endless ``items`` is
    fine. An exception of ``fn`` is raised where its result would stand; whatever has not begun by then is
    cancelled.
    """
    if executor is None:
        yield from map(fn, items)
        return
    bound = max(1, 4 * workers() if window is None else window)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(fn, item))
            if len(pending) >= bound:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
