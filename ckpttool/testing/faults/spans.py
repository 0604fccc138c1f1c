"""Small steps that the faults are made of: a bit flipped, a field overwritten, bytes cut out or put in."""

from __future__ import annotations

import random
from collections.abc import Callable

from ckpttool.testing.faults.registry import Inapplicable
from ckpttool.testing.zips import Placed, placed, tail_of

PAGE = 4096


def flip(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit turned over."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flip_within(data: bytes, start: int, stop: int, rng: random.Random) -> bytes:
    """One random bit of a range turned over."""
    return flip(data, rng.randrange(start * 8, stop * 8))


def splice(data: bytes, start: int, stop: int, new: bytes = b"") -> bytes:
    """The range replaced by other bytes, of any length."""
    return data[:start] + new + data[stop:]


def edit_field(data: bytes, start: int, width: int, change: Callable[[int], int]) -> bytes:
    """A little-endian unsigned field after ``change``, wrapped to its width."""
    value = change(int.from_bytes(data[start : start + width], "little")) % (1 << 8 * width)
    return splice(data, start, start + width, value.to_bytes(width, "little"))


def replace_once(data: bytes, old: bytes, new: bytes) -> bytes:
    """The first occurrence replaced."""
    if old not in data:
        raise Inapplicable(f"the file does not hold {old!r}")
    return data.replace(old, new, 1)


def record(data: bytes, tail: str) -> Placed:
    """Where an archive's record lies, by its name without the folder."""
    for place in placed(data):
        if tail_of(place.name) == tail:
            return place
    raise Inapplicable(f"the archive has no record {tail}")


def payloads(data: bytes) -> list[Placed]:
    """The records that hold storages, without the empty ones."""
    found = [p for p in placed(data) if tail_of(p.name).startswith("data/") and p.stop > p.start]
    if not found:
        raise Inapplicable("the archive holds no storage")
    return found


def largest(data: bytes) -> Placed:
    """The record with the most bytes of content."""
    return max(payloads(data), key=lambda place: place.stop - place.start)


def pages_within(start: int, stop: int) -> range:
    """Offsets of the whole pages inside a range."""
    return range(-(-start // PAGE) * PAGE, stop - PAGE + 1, PAGE)


def some_page(start: int, stop: int, rng: random.Random) -> int:
    """The offset of one whole page inside a range."""
    pages = pages_within(start, stop)
    if not pages:
        raise Inapplicable(f"no whole page of {PAGE} bytes lies within the content")
    return rng.choice(pages)
