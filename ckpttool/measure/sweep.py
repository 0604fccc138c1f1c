"""Doing a work unit with NumPy: read block after block into one buffer, and look while it is in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ckpttool.errors import Unreadable
from ckpttool.measure.crc import crc32
from ckpttool.measure.geometry import Order
from ckpttool.measure.kernels import Bits, scan, view
from ckpttool.measure.outcome import MOST_RUNS, Outcome, joined
from ckpttool.measure.plan import Gather, Range, Region, Sweep, windows
from ckpttool.measure.reading import OVERLAP, Inflated, Readable, buffer_of, opened
from ckpttool.measure.schemes import Part, Scheme, combined, scheme_of
from ckpttool.measures import PAGE, SpanMeasure, sample_step


def sweep(unit: Sweep) -> Outcome:
    """Everything that a sweep asks for, in one pass over its bytes."""
    readable = opened(unit.run, unit.place, whole=False)
    spans: dict[int, SpanMeasure] = {i.index: SpanMeasure(0, 0) for i in unit.items if isinstance(i, Region)}
    parts: dict[int, Part] = {}
    failure = ""
    try:
        for start, buffer, items in _blocks(readable, unit):
            for item in items:
                if isinstance(item, Region):
                    found = _region(buffer, start, item, unit)
                    spans[item.index] = joined(spans[item.index], found)
                else:
                    _add(parts, item.index, _part(buffer, start, item, unit.block))
        if isinstance(readable, Inflated) and readable.longer():
            spans = {k: SpanMeasure(s.read + 1, s.crc32) for k, s in spans.items()}
    except Unreadable as error:
        failure = error.why
    return Outcome(unit.place.source, tuple(spans.items()), tuple(parts.items()), unit.nbytes, failure)


def _blocks(readable: Readable, unit: Sweep) -> Iterator[tuple[int, memoryview, list[Region | Range]]]:
    """The unit's blocks: where each begins, its bytes (and ``OVERLAP`` more), the items there."""
    space = buffer_of(unit.block + OVERLAP)
    for start, end, items in windows(unit.items, unit.block, unit.start):
        if start >= unit.stop:
            break
        first = max(start, min(item.start for item in items))
        last = min(end, max(item.stop for item in items))
        room = space[first - start : last - start + OVERLAP]
        got = readable.readinto(first, room)
        yield start, space[: first - start + got], items
        if got < last - first:
            break


def _region(buffer: memoryview, start: int, item: Region, unit: Sweep) -> SpanMeasure:
    low, high = max(item.start, start), min(item.stop, start + unit.block)
    piece = buffer[low - start : max(low, high) - start]
    runs = () if unit.place.deflated else zero_runs(piece, low)[:MOST_RUNS]
    return SpanMeasure(len(piece), crc32(piece), runs)


def _part(buffer: memoryview, start: int, item: Range, block: int) -> Part | None:
    """The elements of ``item`` that begin in this block, as far as they were read."""
    scheme = scheme_of(item.dtype)
    width = scheme.width * scheme.pair
    numel = (item.stop - item.start) // width
    low = max(0, -((item.start - start) // width))
    high = min(numel, -((item.start - start - block) // width), (start + len(buffer) - item.start) // width)
    if high <= low:
        return None
    bits = view(buffer, item.start + low * width - start, high - low, scheme, item.swapped)
    logical = None if item.order is None or item.order.row_major else item.order.logical
    return scan(bits, scheme, low, sample_step(numel), logical)


def _add(parts: dict[int, Part], index: int, part: Part | None) -> None:
    if part is not None:
        before = parts.get(index)
        parts[index] = part if before is None else combined(before, part)


def zero_runs(piece: memoryview, start: int) -> tuple[tuple[int, int], ...]:
    """Runs of whole zero pages of the file in ``piece``, which lies at byte ``start`` of it."""
    skip = -start % PAGE
    pages = (len(piece) - skip) // PAGE
    if pages < 1:
        return ()
    words = np.frombuffer(piece, np.uint64, pages * (PAGE // 8), skip).reshape(pages, -1)
    # One word in the middle of a page rules out nearly all of them.
    maybe = np.flatnonzero(words[:, PAGE // 16] == 0)
    zero = maybe[np.bitwise_or.reduce(words[maybe], axis=1) == 0]
    runs: list[tuple[int, int]] = []
    for page in zero.tolist():
        low = start + skip + page * PAGE
        if runs and runs[-1][1] == low:
            runs[-1] = (runs[-1][0], low + PAGE)
        else:
            runs.append((low, low + PAGE))
    return tuple(runs)


# --- elements that lie apart ---------------------------------------------------------------------------


def gather(unit: Gather) -> Outcome:
    """A tensor whose elements lie apart, in storage order, each once."""
    item, order = unit.item, unit.item.order
    assert order is not None
    scheme = scheme_of(item.dtype)
    readable = opened(unit.run, unit.place, whole=True)
    step = sample_step(order.numel)
    logical = None if order.row_major else order.logical
    parts: dict[int, Part] = {}
    done, failure = 0, ""
    try:
        for bits in _pieces(readable, item, order, scheme, unit.block):
            _add(parts, item.index, scan(bits, scheme, done, step, logical))
            done += len(bits) // scheme.pair
    except Unreadable as error:
        failure = error.why
    return Outcome(unit.place.source, (), tuple(parts.items()), item.stop - item.start, failure)


def _pieces(readable: Readable, item: Range, order: Order, scheme: Scheme, block: int) -> Iterator[Bits]:
    """A tensor's elements in storage order, read in spans of at most ``block`` bytes, or one element."""
    width = scheme.width * scheme.pair
    most = block // width
    inner, axis = 1, len(order.shape) - 1
    while axis > 0 and (wider := inner + (order.shape[axis] - 1) * order.strides[axis]) <= most:
        inner, axis = wider, axis - 1
    rows, stride = order.shape[axis], order.strides[axis]
    shape, strides = order.shape[axis + 1 :], order.strides[axis + 1 :]
    many = max(1, (most - inner) // stride + 1)
    space = buffer_of(max(block, inner * width))
    for outer in range(math.prod(order.shape[:axis])):
        base = _offset(outer, order, axis)
        for row in range(0, rows, many):
            count = min(many, rows - row)
            start = item.start + (base + row * stride) * width
            span = ((count - 1) * stride + inner) * width
            if readable.readinto(start, space[:span]) < span:
                return
            flat = view(space, 0, span // width, scheme, item.swapped)
            yield _picked(flat, (count, *shape), (stride, *strides), scheme)


def _offset(outer: int, order: Order, axis: int) -> int:
    """The first element of the ``outer``-th block of the dimensions before ``axis``."""
    found = 0
    for n, stride in zip(reversed(order.shape[:axis]), reversed(order.strides[:axis]), strict=True):
        outer, coordinate = divmod(outer, n)
        found += coordinate * stride
    return found


def _picked(flat: Bits, shape: tuple[int, ...], strides: tuple[int, ...], scheme: Scheme) -> Bits:
    width = scheme.width
    shape = (*shape, scheme.pair)
    steps = (*(s * width * scheme.pair for s in strides), width)
    return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False).reshape(-1)
