"""What ``torch.load`` may build beside what torch allows of itself, for one call."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from ckpttool.errors import UsageError, printable
from ckpttool.safety import canonical, standing

_TORCH_KNOWS = frozenset({"torch", "builtins", "__builtin__", "collections", "_codecs"})
"""Where the names live that torch allows of itself as far as it can build what they make."""

_one_at_a_time = threading.Lock()
"""torch keeps one list for the whole process."""


@contextmanager
def allowed(torch: ModuleType, path: str, trust: Collection[str]) -> Iterator[None]:
    """Let torch build the plain data that a file names and its own list lacks, and what ``trust`` names.

    What others have allowed stays so. Raises ``UsageError`` for a name that cannot be imported, and for one that
    torch before 2.6 cannot be told of.
    """
    wanted = [*_plain(path), *((_named(dotted), dotted) for dotted in trust)]
    if not wanted:
        yield
        return
    serialization = torch.serialization
    with _one_at_a_time:
        before = list(serialization.get_safe_globals())
        serialization.add_safe_globals([one for one in _as_taken(torch, wanted) if one not in before])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


def _as_taken(torch: ModuleType, wanted: list[tuple[Any, str]]) -> list[Any]:
    """Pairs of objects and the names that the file has for them; torch before 2.6 takes objects alone."""
    if _version(torch) >= (2, 6):
        return list(wanted)
    other = [name for one, name in wanted if f"{one.__module__}.{one.__name__}" != name]
    if other:
        why = f"takes other names than the file's only from 2.6 on, and this is {torch.__version__}"
        raise UsageError(f"cannot load {printable(other[0])}: torch {why}; update torch, or sanitize the file")
    return [one for one, _ in wanted]


def _version(torch: ModuleType) -> tuple[int, int]:
    major, minor = str(torch.__version__).split(".")[:2]
    return int(major), int(minor)


def _plain(path: str) -> Iterator[tuple[Any, str]]:
    """The constructors of plain data: numbers, paths, namespaces.

    They are imported from where they live, under the name that the file has for them.
    """
    from ckpttool.formats import describe

    for use in describe(path).globals:
        known = use.module.partition(".")[0] in _TORCH_KNOWS
        if not known and standing(use.module, use.name) == "plain":
            yield _named(".".join(canonical(use.module, use.name))), use.dotted
            if canonical(use.module, use.name) == ("numpy", "dtype"):
                yield from ((cls, f"{cls.__module__}.{cls.__name__}") for cls in _element_types())


def _element_types() -> list[Any]:
    """What ``numpy.dtype`` makes is of these classes, and torch asks for them too; numpy before 1.25 has none."""
    try:
        found = import_module("numpy.dtypes")
    except ImportError:
        return []
    return [getattr(found, name) for name in dir(found) if name.endswith("DType")]


def _named(dotted: str) -> Any:
    """An object by its name, which is on our list or was given by the caller, never by a file alone."""
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"cannot import {printable(dotted)}, which loading needs: {error}") from error
