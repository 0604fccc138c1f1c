"""A pickle that ends early, or cannot be read from some byte on, given an end: what was whole by then can be read.

A pickle builds containers from the outside in and fills them in batches, so at any byte some are open. Each is closed
as it stands, without the value that was under way.
"""

from __future__ import annotations

import pickletools
from typing import Any

from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.stack import BytesAt, CallOf, DictOf, ListOf, Named
from ckpttool.formats.torch_values import TorchValues
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.source import SimpleSource, Source

_NO_FRAME = b"N0N0N0K\x000"
"""Opcodes that do nothing, as long as the one that opens a frame: a frame's length counts bytes that are gone."""

_POP, _STOP, _NONE, _DISCARD = b"0", b".", b"N", b"t0"
_PENDING = 6
"""Plain values that may wait for their tuple: those up to three items long are written without a mark before them."""

_TRIES = 16
"""Bytes that are given up, one by one, where what stands before them is no whole opcode."""

_PLAIN = (str, int, float, tuple, type(None), BytesAt)


@dataclass(frozen=True, slots=True)
class Closing:
    """Where what can be read ends, what has to follow there, and where frames were opened (offsets in the data)."""

    at: int
    tail: bytes
    frames: tuple[int, ...]


def closing(data: bytes | memoryview, start: int, limits: Limits) -> Closing | None:
    """How the pickle that begins at ``start`` is to be ended; None where nothing of it can be kept.

    Looks at each opcode once without carrying it out, and carries them out once.
    """
    at, frames = start, []
    try:
        for opcode, _, place in pickletools.genops(bytes(data[start:])):
            at = start + (place or 0)
            if opcode.name == "FRAME":
                frames.append(at)
            if opcode.name == "STOP":
                return None
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError):
        # The opcode that cannot be read begins behind the one that was read last.
        at = _behind(data, start, at)
    for stop in range(at, max(start, at - _TRIES), -1):
        tail = _tail(_prefix(data, start, stop, tuple(frames)), limits)
        if tail is not None:
            return Closing(stop, tail, tuple(frame for frame in frames if frame < stop))
    return None


def _behind(data: bytes | memoryview, start: int, last: int) -> int:
    try:
        pairs = list(zip(pickletools.genops(bytes(data[last:])), range(2), strict=False))
        return last + (pairs[1][0][2] or 0) if len(pairs) > 1 else last
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError):
        return last


def _prefix(data: bytes | memoryview, start: int, at: int, frames: tuple[int, ...]) -> bytes:
    kept = bytearray(data[start:at])
    for frame in frames:
        if frame + len(_NO_FRAME) <= at:
            kept[frame - start : frame - start + len(_NO_FRAME)] = _NO_FRAME
    return bytes(kept)


def _tail(prefix: bytes, limits: Limits) -> bytes | None:
    """The opcodes that end a pickle whose beginning this is; None where it is wrong before its end."""
    values = TorchValues()
    # One more value: a mark is only set where something follows it.
    machine = Machine(prefix + _NONE, reducers=values.reducers, persistent=values.persistent, limits=limits)
    outcome = machine.run()
    if not outcome.cut or outcome.end <= len(prefix):
        return None
    tail, items, behind = b"", list(machine.stack[:-1]), False
    for outer in reversed(machine.marks):
        parent = outer[-1] if outer else None
        closed, used = _closed(parent, items, open_=behind)
        tail, items, behind = tail + closed, list(outer), used
        if not used and isinstance(parent, CallOf):
            tail, items = tail + _POP, items[:-1]
    last = _last(items, open_=behind)
    return None if last is None else tail + last


def _last(items: list[Any], *, open_: bool) -> bytes | None:
    """The opcodes that leave the outermost value alone on the stack; one that has a single item may get it."""
    root = items[0] if items else None
    if not isinstance(root, (DictOf, ListOf)) and not _under_way(items, len(items)):
        return None
    if open_ and isinstance(root, DictOf) and len(items) == 3:
        return b"s" + _STOP
    if open_ and isinstance(root, ListOf) and root.kind == "list" and len(items) == 2:
        return b"a" + _STOP
    return _POP * (len(items) - 1) + _STOP


def _closed(parent: Any, items: list[Any], *, open_: bool) -> tuple[bytes, bool]:
    """The opcodes that end what stands behind a mark, and whether it went into the container before that.

    ``open_`` says that the last item is a container that has been closed just now.
    """
    stop = len(items) - open_
    sure = open_ and _single(items, len(items)) is None
    if isinstance(parent, DictOf):
        if sure and stop % 2:
            return b"u", True
        kept = _under_way(items, stop)
        return _POP * (len(items) - kept + kept % 2) + b"u", True
    if isinstance(parent, ListOf) and parent.kind == "list":
        kept = len(items) if sure else _under_way(items, stop)
        return _POP * (len(items) - kept) + b"e", True
    return _DISCARD, False


def _under_way(items: list[Any], stop: int) -> int:
    """Where the value under way begins, at the earliest.

    That is before a global, whose call would have followed; before an object, which may have been about to get its
    state; before the last plain values, which may have been about to become a tuple or a global's name; and behind
    an empty container that may have been about to get its only item.
    """
    stop = next((place for place, item in enumerate(items[:stop]) if isinstance(item, Named)), stop)
    single = _single(items, stop)
    if single is not None:
        return single
    least = max(0, stop - _PENDING)
    while stop > least and isinstance(items[stop - 1], _PLAIN):
        stop -= 1
    last = items[stop - 1] if stop else None
    return stop - (isinstance(last, CallOf) and last.state is None)


def _single(items: list[Any], stop: int) -> int | None:
    """Where an empty container stands with something behind it, which may have been about to become its only item."""
    for place, item in enumerate(items[:stop]):
        empty = (isinstance(item, DictOf) and not item.flat) or (isinstance(item, ListOf) and not item.items)
        if empty and place + 1 < len(items):
            return place
    return None


class Closed(SimpleSource):
    """A source that reads as one up to a place, frames aside, and as the closing opcodes from there on."""

    def __init__(self, source: Source, end: Closing) -> None:
        self.name, self.size = source.name, end.at + len(end.tail)
        self._source, self._end = source, end

    def read(self, start: int, nbytes: int) -> bytes:
        stop = min(start + max(nbytes, 0), self.size)
        data = bytearray(self._source.read(start, max(0, min(stop, self._end.at) - start)))
        for frame in self._end.frames:
            for offset, value in enumerate(_NO_FRAME):
                if start <= frame + offset < start + len(data):
                    data[frame + offset - start] = value
        first = max(start, self._end.at)
        if first < stop:
            data += self._end.tail[first - self._end.at : stop - self._end.at]
        return bytes(data)

    def changed(self) -> bool:
        return self._source.changed()

    def close(self) -> None:
        self._source.close()
