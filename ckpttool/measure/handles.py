"""Opened sources, shared by the work units of one measuring run. A unit names its source, so it pickles."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ckpttool.source import Source, open_source

_KEPT = 16
"""Sources that a process keeps open. A pool's worker sees no end of a run, so old ones make room."""

_given: dict[tuple[str, str], Source] = {}
_opened: OrderedDict[tuple[str, str], Source] = OrderedDict()
_lock = threading.Lock()
_runs = itertools.count()


@contextmanager
def run(sources: Iterable[Source] = ()) -> Iterator[str]:
    """A run's token. Sources opened under it are let go at the end; ``sources`` are used by name."""
    token = f"{os.getpid()}.{next(_runs)}"
    with _lock:
        _given.update({(token, source.name): source for source in sources})
    try:
        yield token
    finally:
        with _lock:
            for cache in (_given, _opened):
                for key in [key for key in cache if key[0] == token]:
                    del cache[key]


def source_of(token: str, name: str) -> Source:
    """The source of this name, opened at most once in a run and process; raises ``Unreadable``."""
    key = (token, name)
    with _lock:
        found = _given.get(key) or _opened.get(key)
        if found is None:
            found = _opened[key] = open_source(name)
            while len(_opened) > _KEPT:
                _opened.popitem(last=False)  # closed by the last unit that still reads it
        return found
