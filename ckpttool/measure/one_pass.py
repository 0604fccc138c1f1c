"""Digests of a file's blocks and of the tensors in it, from one reading."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeAlias

import xxhash

from ckpttool.manifest import TensorSeal
from ckpttool.measure.digests import digests
from ckpttool.measure.leaves import content_of, deflated_extents
from ckpttool.measure.running import pool
from ckpttool.measure.seals import STRIDE, seal_of, tensors_of
from ckpttool.model import Checkpoint
from ckpttool.pool import ordered_map
from ckpttool.source import open_source

_PIECE = 1 << 20
"""Bytes that are read at a time: two digests look at them while they are in the processor's cache."""


def file_digests(
    path: str,
    block: int,
    spans: Sequence[tuple[int, int]],
    *,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[tuple[str, ...], dict[tuple[int, int], str]]:
    """The XXH3-128 of each block of a file and of each of some byte ranges of it, in one reading.

    ``spans`` are in order and do not overlap. Memory stays at a chunk for each thread. Raises ``Unreadable``.
    """
    source = open_source(path)
    size = source.size
    source.close()
    blocks: list[str] = []
    known: dict[tuple[int, int], str] = {}
    with pool(executor, size) as chosen:
        units = _units(size, block, spans)
        for some, found, read in ordered_map(partial(_unit, path, block, size), units, chosen):
            blocks.extend(some)
            known.update(found)
            if progress:
                progress(read)
    return tuple(blocks), known


Unit: TypeAlias = "tuple[int, int, tuple[tuple[int, int], ...]]"
"""Where the blocks and ranges of a unit of work begin: from a byte on, up to another; and the ranges."""


def _units(size: int, block: int, spans: Sequence[tuple[int, int]]) -> Iterator[Unit]:
    """Cut where a range begins, at every ``STRIDE`` bytes or as soon after it as one does."""
    start, mine = 0, list[tuple[int, int]]()
    for span in spans:
        if span[0] - start >= STRIDE:
            yield start, span[0], tuple(mine)
            start, mine = span[0], []
        mine.append(span)
    # What follows the last range, and all of a file that has none, can be cut at any block.
    edge = max([start, *(stop for _, stop in mine)])
    while size - edge > 2 * STRIDE:
        edge = -(-edge // block) * block + max(block, STRIDE // block * block)
        yield start, min(edge, size), tuple(mine)
        start, mine = min(edge, size), []
    yield start, size, tuple(mine)


def _unit(path: str, block: int, size: int, unit: Unit) -> tuple[list[str], dict[tuple[int, int], str], int]:
    """The digests of the blocks and ranges that begin in a unit."""
    start, stop, spans = unit
    first, behind = -(-start // block), -(-stop // block)
    ranges = [(number * block, min((number + 1) * block, size)) for number in range(first, behind)]
    end = max([stop, *(b for _, b in ranges[-1:]), *(b for _, b in spans[-1:])])
    runs = _Running(ranges), _Running(spans)
    source = open_source(path)
    buffer = memoryview(bytearray(max(1, min(_PIECE, end - start))))
    try:
        at = start
        while at < end:
            got = source.readinto(at, buffer[: end - at])
            if not got:
                break
            for run in runs:
                run.take(at, buffer[:got])
            at += got
    finally:
        source.close()
    return [digest for _, digest in runs[0].finish()], dict(runs[1].finish()), stop - start


class _Running:
    """Digests of ranges that are in order, of bytes that come in order."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._left = deque(ranges)
        self._digest = xxhash.xxh3_128()
        self._begun = False
        self._done: list[tuple[tuple[int, int], str]] = []

    def take(self, at: int, data: memoryview) -> None:
        """Bytes of the file from ``at`` on."""
        stop = at + len(data)
        while self._left and self._left[0][0] < stop:
            begin, end = self._left[0]
            piece = data[max(begin, at) - at : min(end, stop) - at]
            if begin >= at and end <= stop:
                self._done.append((self._left.popleft(), xxhash.xxh3_128_hexdigest(piece)))
                continue
            self._digest.update(piece)
            self._begun = True
            if end > stop:
                return
            self._close()

    def finish(self) -> list[tuple[tuple[int, int], str]]:
        """What is complete; a range that the file ended in counts as it is."""
        if self._begun:
            self._close()
        return self._done

    def _close(self) -> None:
        self._done.append((self._left.popleft(), self._digest.hexdigest()))
        self._digest, self._begun = xxhash.xxh3_128(), False


def sealed_at_once(
    checkpoint: Checkpoint,
    files: Sequence[tuple[str, int]],
    *,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, tuple[str, ...]], tuple[TensorSeal, ...]]:
    """The block digests of files, given with their block sizes, and the seals of all tensors.

    Reads each file once; tensors that do not lie in one piece as they are (views, deflated, big-endian) once more.
    """
    found = list(tensors_of(checkpoint))
    spans = _in_one_piece(checkpoint, [index for _, index in found], {path for path, _ in files})
    blocks: dict[str, tuple[str, ...]] = {}
    known: dict[int, str] = {}
    for path, block in files:
        mine = spans.get(path, {})
        blocks[path], digests_here = file_digests(path, block, sorted(mine), executor=executor, progress=progress)
        known.update((index, digests_here[span]) for span, those in mine.items() for index in those)
    rest = [index for _, index in found if index not in known]
    known.update(digests(checkpoint, rest, executor=executor))
    return blocks, tuple(seal_of(checkpoint, key, index, known) for key, index in found)


def _in_one_piece(
    checkpoint: Checkpoint, indices: Iterable[int], paths: Collection[str]
) -> dict[str, dict[tuple[int, int], list[int]]]:
    """Where tensors lie whose content is a range of a file as it is, by file and range; none overlap others."""
    deflated = deflated_extents(checkpoint)
    found: dict[str, dict[tuple[int, int], list[int]]] = {}
    for index in dict.fromkeys(indices):
        content = content_of(checkpoint, index, "", deflated)
        if content is None or content.swapped or not content.tensor.contiguous:
            continue
        place = content.place
        plain = place.boxed is None and place.inline is None and not place.deflated
        if plain and place.source in paths and content.start < content.stop:
            found.setdefault(place.source, {}).setdefault((content.start, content.stop), []).append(index)
    return {path: _apart(spans) for path, spans in found.items()}


def _apart(spans: dict[tuple[int, int], list[int]]) -> dict[tuple[int, int], list[int]]:
    """Without the ranges that reach into the one before."""
    kept: dict[tuple[int, int], list[int]] = {}
    edge = 0
    for span in sorted(spans):
        if span[0] >= edge:
            kept[span] = spans[span]
            edge = span[1]
    return kept
