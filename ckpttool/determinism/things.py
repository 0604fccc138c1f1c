"""Things that live in somebody else's program: kept by identity, without keeping them alive. Standard library only."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Things(Generic[T]):
    """Weakly held things in the order in which they were met.

    By identity: what a class says of equality and hashing is its own affair. A place is given up when its thing dies,
    so one that comes to lie at the same address later is a new one, and the last.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, thing: T) -> None:
        """Meet a thing; one that is known keeps its place."""
        if thing not in self:
            self._references[id(thing)] = weakref.ref(thing, self._forget(id(thing)))

    def _forget(self, address: int) -> Callable[[weakref.ref[T]], None]:
        def forget(dead: weakref.ref[T]) -> None:
            if self._references.get(address) is dead:
                del self._references[address]

        return forget

    def __contains__(self, thing: object) -> bool:
        found = self._references.get(id(thing))
        return found is not None and found() is thing

    def __iter__(self) -> Iterator[T]:
        """Those that live; what dies or comes meanwhile disturbs nothing."""
        for reference in list(self._references.values()):
            thing = reference()
            if thing is not None:
                yield thing

    def __len__(self) -> int:
        return sum(1 for _ in self)
