"""One task of comparing: a run of one tensor on two sides, as bytes first, as numbers where those differ."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.changes import Tolerance
from ckpttool.dtypes import DType
from ckpttool.errors import Unreadable
from ckpttool.frozen import dataclass
from ckpttool.measure import compiled
from ckpttool.measure.blocks import blocks, libc
from ckpttool.measure.deltas import Tally, merged, tally
from ckpttool.measure.handles import source_of
from ckpttool.measure.kernels import Bits, view
from ckpttool.measure.leaves import LEAF, Content, leaves, rechunked
from ckpttool.measure.plan import Place
from ckpttool.measure.reading import buffer_of, opened
from ckpttool.measure.schemes import scheme_of
from ckpttool.measure.values import floats

if TYPE_CHECKING:
    pass

BLOCK = 2 << 20
"""Bytes of a side that are looked at together, a multiple of any leaf's: both sides stay in a core's cache."""

TOGETHER = 8 << 20
"""Bytes of a side that are read at once for the sake of many small tensors."""

PROBE = 64
"""Elements among which nearly every tensor has one that is not 0."""


@dataclass(frozen=True, slots=True)
class Task:
    """A run of elements on two sides; ``begin`` is its first element's index in the tensor.

    ``full`` asks for numbers even where all bytes are equal. ``same`` says that both sides are one range of
    one file; ``parted`` that any part of both sides can be read; ``raw`` that moreover equal elements are
    equal bytes. ``packed`` is the type of elements narrower than a byte, whose bytes the contents are;
    ``numel`` counts the elements of the whole tensor.
    """

    a: Content
    b: Content
    tolerance: Tolerance
    begin: int = 0
    full: bool = False
    same: bool = False
    parted: bool = False
    raw: bool = False
    packed: DType | None = None
    numel: int = 0

    @property
    def alike(self) -> bool:
        """Whether equal elements have equal bits once they are in the machine's byte order."""
        return self.a.tensor.dtype == self.b.tensor.dtype

    @property
    def types(self) -> tuple[DType, DType]:
        """The element types of both sides."""
        if self.packed is not None:
            return self.packed, self.packed
        return self.a.tensor.dtype, self.b.tensor.dtype

    @property
    def nbytes(self) -> int:
        return self.a.stop - self.a.start + self.b.stop - self.b.start


def plain(content: Content) -> bool:
    """Whether the content's bytes lie in the file as they are, in order: any part of them can be read."""
    return content.tensor.contiguous and content.place.deflated is None


def run(tasks: tuple[Task, ...]) -> tuple[Tally, ...]:
    """Do the tasks. What cannot be read is not in ``compared``; nothing is raised for it."""
    return tuple(_run(task) for task in _together(tasks))


def _together(tasks: tuple[Task, ...]) -> Sequence[Task]:
    """The tasks on bytes read at once, where several small ones lie close together on both sides."""
    if len(tasks) < 2 or not all(task.parted and not task.same for task in tasks):
        return tasks
    a, b = _moved([task.a for task in tasks]), _moved([task.b for task in tasks])
    if a is None or b is None:
        return tasks
    return [replace(task, a=a[number], b=b[number]) for number, task in enumerate(tasks)]


def _moved(contents: list[Content]) -> list[Content] | None:
    """The contents in one run of bytes in memory; None where they are not all close in one file."""
    place = contents[0].place
    begin = min(content.start for content in contents)
    end = max(content.stop for content in contents)
    if end - begin > TOGETHER or any(content.place is not place for content in contents):
        return None
    try:
        if place.inline is not None or place.boxed is not None:
            return None
        data = source_of(contents[0].run, place.source).read(begin, end - begin)
    except Unreadable:
        return None
    held = Place("", inline=data, size=len(data))
    return [Content(c.run, held, c.tensor, c.start - begin, c.stop - begin, c.swapped) for c in contents]


def _run(task: Task) -> Tally:
    if task.same and not task.full:
        return _same(task)
    if task.alike and not task.full:
        equal = _equal(task)
        if equal is not None:
            return equal
    return _numbers(task)


def _same(task: Task) -> Tally:
    """One range of one file twice: its last byte shows that the file has it."""
    try:
        last = opened(task.a.run, task.a.place, whole=False).readinto(task.a.stop - 1, memoryview(bytearray(1)))
        some = any(_some(leaf, task.a) for leaf in leaves(task.a))
    except Unreadable:
        return Tally()
    if not last:
        return _equal(task) or Tally()
    return Tally(task.numel, some=some)


def _equal(task: Task) -> Tally | None:
    """The tally of a run whose sides have the same bits as far as both can be read; None if they differ."""
    compared, some = 0, False
    try:
        pairs = _raw(task) if task.raw else zip(leaves(task.a, 0), leaves(task.b, 1), strict=False)
        for a, b in pairs:
            if len(a) != len(b):  # a side ends early: what both have is compared
                a, b = a[: min(len(a), len(b))], b[: min(len(a), len(b))]
            if not same_bits(a, b):
                return None
            some = some or _some(a, task.a)
            compared += len(a)
    except Unreadable:
        pass
    if task.packed is not None:
        return Tally(min(task.numel, compared * 8 // task.packed.bits), some=some)
    return Tally(compared // scheme_of(task.a.tensor.dtype).pair, some=some)


def _numbers(task: Task) -> Tally:
    parts: list[Tally] = []
    begin = task.begin
    x, y = task.types
    quick = x == y and compiled.compiled(x)
    try:
        for a, b in _raw(task) if quick and task.raw and not task.a.swapped else _leaves(task):
            if quick and len(a) == len(b):
                parts.append(compiled.tally(a, b, x, task.tolerance, begin))
            else:
                parts.append(tally(a, b, x, y, task.tolerance, begin))
            begin += parts[-1].compared
    except Unreadable:
        pass
    return merged(parts)


def _leaves(task: Task) -> Iterator[tuple[Bits, Bits]]:
    """Leaves of both sides, cut to what both have."""
    if task.packed is not None:
        yield from zip(_codes(task, task.packed, 0), _codes(task, task.packed, 1), strict=False)
        return
    if task.raw and not task.a.swapped:
        for a, b in _raw(task):
            step = LEAF * scheme_of(task.a.tensor.dtype).pair
            for start in range(0, len(a), step):
                yield a[start : start + step], b[start : start + step]
        return
    yield from zip(leaves(task.a, 0), leaves(task.b, 1), strict=False)


def _codes(task: Task, dtype: DType, side: int) -> Iterator[Bits]:
    """Leaves of elements narrower than a byte, one to a byte; the first is in the lowest bits."""
    pieces = (leaf.copy() for leaf in leaves(task.b if side else task.a, side))
    left = task.numel
    for piece in rechunked(pieces, LEAF * dtype.bits // 8):
        flat = np.unpackbits(piece.view(np.uint8), bitorder="little")
        bits = flat[: min(left, len(flat) // dtype.bits) * dtype.bits].reshape(-1, dtype.bits)
        yield np.packbits(bits, axis=1, bitorder="little").reshape(-1)
        left -= len(bits)


def _raw(task: Task) -> Iterator[tuple[Bits, Bits]]:
    """Blocks of both sides as their elements' bits, in the file's byte order."""
    scheme = scheme_of(task.a.tensor.dtype)
    width = scheme.width * scheme.pair
    for a, b in zip(blocks(task.a, BLOCK, 0), blocks(task.b, BLOCK, 1), strict=False):
        count = min(len(a), len(b)) // width
        yield view(a.data, 0, count, scheme, False), view(b.data, 0, count, scheme, False)


def same_bits(a: Bits, b: Bits) -> bool:
    """Whether two runs of one length have the same bits; without a temporary for each block."""
    compare = libc("memcmp", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    if a.flags.c_contiguous and b.flags.c_contiguous and compare is not None:
        return compare(a.ctypes.data, b.ctypes.data, a.nbytes) == 0
    if a.nbytes % 8 == 0 and a.flags.c_contiguous and b.flags.c_contiguous:
        a, b = a.view(np.uint64), b.view(np.uint64)
    unequal = np.frombuffer(buffer_of(len(a), 2), bool)
    return not np.not_equal(a, b, out=unequal).any()


def _some(bits: Bits, content: Content) -> bool:
    """Whether a finite value other than 0 is among these elements."""
    native = bits.byteswap() if content.swapped and content.tensor.contiguous else bits
    dtype = content.tensor.dtype
    for piece in (native[:PROBE], native[PROBE:]):
        if len(piece):
            values = floats(piece, dtype)
            if (np.isfinite(values) & (values != 0)).any():
                return True
    return False
