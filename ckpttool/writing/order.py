"""Byte order of a torch file: one for all of its storages, so that what differs is turned while it is written."""

from __future__ import annotations

from collections.abc import Iterable

from ckpttool.draft import Draft, Made
from ckpttool.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """``big`` is the file's order; ``widths`` has the bytes of each element to be turned, by storage."""

    big: bool
    widths: dict[int, int]

    def width(self, index: int) -> int:
        """Bytes whose order is turned in a storage; 0 where it is written as it lies."""
        return self.widths.get(index, 0)


LITTLE = Order(False, {})


def order_of(draft: Draft, indices: Iterable[int], *, always_little: bool = False) -> Order:
    """The order of a file with these storages: big-endian if all that is there already is so, else little.

    What is computed comes in the order that is asked for, so it is never turned.
    """
    storages = draft.checkpoint.storages
    there = [index for index in indices if _is_there(draft, index)]
    swapped = [index for index in there if storages[index].swapped]
    if not swapped:
        return LITTLE
    if len(swapped) == len(there) and not always_little:
        return Order(True, {})
    return Order(False, {index: _turn(draft, index) for index in swapped})


def _is_there(draft: Draft, index: int) -> bool:
    """Whether a storage has numbers with an order of their own already."""
    content = draft.contents[index]
    return bool(_turn(draft, index) and content.nbytes) and not isinstance(content, Made)


def _turn(draft: Draft, index: int) -> int:
    """Bytes of a number in a storage, 0 where they are single."""
    dtype = draft.checkpoint.storages[index].dtype
    width = dtype.itemsize // 2 if dtype.kind == "complex" else dtype.itemsize
    return width if width > 1 else 0
