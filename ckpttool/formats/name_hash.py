"""The first half of ``.data/serialization_id``: torch's hash of an archive's record names, as its Linux wheels have it.

It depends on the C++ library: the hash of a string and the order in which a set of strings is walked. torch never
compares it, so on other platforms the digits are as good as any. Sources: torch 2.13
``PyTorchStreamWriter::writeSerializationId``; GCC 13 ``libsupc++/hash_bytes.cc``, ``bits/hashtable.h`` and
``src/c++11/hashtable_c++0x.cc``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpttool.frozen import dataclass

_MASK = (1 << 64) - 1
_MULTIPLIER = 0xC6A4A7935BD1E995
_SEED = 0xC70F6907

_BUCKETS = (
    13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172933, 351061, 712697,
    1447153, 2938679, 5967347, 12117689, 24607243,
)  # fmt: skip
"""How many buckets a set has as it grows: each the next prime of the library's table from twice the last."""


def name_hash(names: Iterable[str]) -> int:
    """The hash of record names, given without the archive's folder and in the order of writing; 64 bits. Linear."""
    seed = 0
    for value in _walked([string_hash(name.encode()) for name in names]):
        seed ^= (value + 0x9E3779B9 + (seed << 6) + (seed >> 2)) & _MASK
    return seed


def string_hash(data: bytes) -> int:
    """``std::hash<std::string>``: MurmurHash64A in its libstdc++ form."""
    value = _SEED ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) & ~7
    for start in range(0, whole, 8):
        word = int.from_bytes(data[start : start + 8], "little")
        value = ((value ^ _mixed(word * _MULTIPLIER & _MASK) * _MULTIPLIER & _MASK) * _MULTIPLIER) & _MASK
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    return _mixed(_mixed(value) * _MULTIPLIER & _MASK)


def _mixed(value: int) -> int:
    return value ^ (value >> 47)


@dataclass(slots=True)
class _Item:
    value: int
    following: _Item | None = None


def _walked(values: list[int]) -> Iterator[int]:
    """The order in which an ``unordered_set`` is walked that these hashes were put in one by one."""
    items = _Chain(1)
    for count, value in enumerate(values):
        if count + 1 > (0 if items.size == 1 else items.size):
            items = items.grown(next(size for size in _BUCKETS if size > count))
        items.put(_Item(value))
    item = items.head.following
    while item is not None:
        yield item.value
        item = item.following


class _Chain:
    """The set's one list through all buckets; ``before`` has the item in front of each bucket's first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.head = _Item(-1)
        self.before: dict[int, _Item] = {}

    def put(self, item: _Item) -> None:
        bucket = item.value % self.size
        before = self.before.get(bucket)
        if before is not None:
            item.following, before.following = before.following, item
            return
        item.following, self.head.following = self.head.following, item
        if item.following is not None:
            self.before[item.following.value % self.size] = item
        self.before[bucket] = self.head

    def grown(self, size: int) -> _Chain:
        """The same items in more buckets, moved in the order of the list."""
        grown = _Chain(size)
        item = self.head.following
        while item is not None:
            following = item.following
            grown.put(item)
            item = following
        return grown
