"""How far the tensors of two checkpoints are apart: one pass over both sides, leaf by leaf.

Tensors of one type are first compared as bytes; only where some differ are numbers made of them. Sums are by
leaf of 2^16 elements and then added exactly, so that results depend on nothing but the content.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from ckpttool.changes import Difference, Tolerance
from ckpttool.measure import handles
from ckpttool.measure.deltas import Tally, merged
from ckpttool.measure.leaves import LEAF, Content
from ckpttool.measure.pairs import Key, Pair, planned
from ckpttool.measure.running import Progress, pool, throttled
from ckpttool.measure.sides import has_ulps
from ckpttool.measure.two import Task, run
from ckpttool.model import Checkpoint, Tensor
from ckpttool.pool import ordered_map
from ckpttool.source import Source

UNIT = 32 * LEAF
"""Elements that one task compares where a tensor can be cut: 8 MiB a side of float32."""

BATCH = 128
BATCH_BYTES = 4 << 20
"""Small tasks are handed over together: at most so many, of so many bytes."""


def differences(
    a: Checkpoint,
    b: Checkpoint,
    pairs: Sequence[Pair],
    *,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
    executor: Executor | None = None,
    progress: Progress | None = None,
    sources: Iterable[Source] = (),
    window: int | None = None,
    unit: int = UNIT,
) -> dict[Pair, Difference]:
    """How far each pair of tensors is apart; the same for every executor, window and unit.

    ``pairs`` are node indices in a and b, of tensors of one shape; types may differ. Every pair gets an
    answer: ``compared`` is 0 where a side's content is not in its file or in no form that can be compared.
    ``executor`` is any ``concurrent.futures.Executor``, by default as many threads as there are processors;
    ``sources`` are used by name instead of being opened, and those in memory need threads. ``unit`` counts
    elements, a multiple of 65536. Reads both sides once; of tensors that differ in parts, the equal parts
    twice. Never raises for what a file holds or lacks.
    """
    with handles.run(sources) as token:
        unique: dict[Key, Task] = {}
        keys = planned(a, b, pairs, token, tolerance, unique)
        tasks = list(unique.values())
        total = sum(task.nbytes for task in tasks)
        with pool(executor, total) as chosen:
            tallies = _compared(tasks, unit, chosen, window, throttled(progress, total))
        results = dict(zip(unique, map(_finished, tasks, tallies), strict=True))
        return {pair: _nothing(a, pair[0]) if key is None else results[key] for pair, key in keys.items()}


# --- comparing it --------------------------------------------------------------------------------------


def _compared(
    tasks: Sequence[Task], unit: int, executor: Executor | None, window: int | None, report: Callable[[int], None]
) -> list[Tally]:
    """The tally of each task. Equal pieces of tensors that differ elsewhere are summed up in the end."""
    pieces = [(number, piece) for number, task in enumerate(tasks) for piece in _pieces(task, unit)]
    tallies = _run(pieces, executor, window, report)
    differ = {number for (number, _), tally in zip(pieces, tallies, strict=True) if tally.changed}
    again = [
        place
        for place, (number, _) in enumerate(pieces)
        if number in differ and tallies[place].compared and not tallies[place].sums
    ]
    full = [(pieces[place][0], replace(pieces[place][1], full=True)) for place in again]
    for place, tally in zip(again, _run(full, executor, window, lambda _: None), strict=True):
        tallies[place] = tally
    grouped: list[list[Tally]] = [[] for _ in tasks]
    for (number, _), tally in zip(pieces, tallies, strict=True):
        grouped[number].append(tally)
    return [merged(parts) for parts in grouped]


def _pieces(task: Task, unit: int) -> Iterator[Task]:
    """A task cut so that several threads can share it, where any part of both sides can be read."""
    numel = task.a.tensor.numel
    if numel <= unit or task.same or not task.parted:
        yield task
        return
    for begin in range(0, numel, unit):
        end = min(begin + unit, numel)
        yield replace(task, a=_part(task.a, begin, end), b=_part(task.b, begin, end), begin=begin)


def _part(content: Content, begin: int, end: int) -> Content:
    width = content.tensor.dtype.itemsize
    return replace(content, start=content.start + begin * width, stop=content.start + end * width)


def _run(
    pieces: Sequence[tuple[int, Task]], executor: Executor | None, window: int | None, report: Callable[[int], None]
) -> list[Tally]:
    batches = list(_batches(task for _, task in pieces))
    tallies: list[Tally] = []
    for batch, found in zip(batches, ordered_map(run, batches, executor, window=window), strict=True):
        tallies += found
        report(sum(task.nbytes for task in batch))
    return tallies


def _batches(tasks: Iterable[Task]) -> Iterator[tuple[Task, ...]]:
    batch: list[Task] = []
    nbytes = 0
    for task in tasks:
        if batch and (len(batch) >= BATCH or nbytes + task.nbytes > BATCH_BYTES):
            yield tuple(batch)
            batch, nbytes = [], 0
        batch.append(task)
        nbytes += task.nbytes
    if batch:
        yield tuple(batch)


# --- the answer ----------------------------------------------------------------------------------------


def _nothing(checkpoint: Checkpoint, index: int) -> Difference:
    node = checkpoint.nodes[index]
    return Difference(node.numel if isinstance(node, Tensor) else 0, 0, 0, 0)


def _finished(task: Task, tally: Tally) -> Difference:
    numel = task.numel
    if not tally.changed:
        return Difference(numel, tally.compared, 0, 0, cosine=_cosine_of_equals(tally), max_ulp=_ulps(task, 0))
    distance, squares, product, left, right = (_total(column) for column in zip(*tally.sums, strict=True))
    mean = distance / tally.finite if tally.finite else 0.0
    rms = math.sqrt(squares / tally.finite) if tally.finite else 0.0
    return Difference(
        numel,
        tally.compared,
        tally.changed,
        tally.beyond,
        tally.max_abs,
        min(mean, tally.max_abs),
        tally.max_rel,
        # Squares of the least and the greatest float64 values leave its range; this holds for every rms.
        min(max(rms, mean), tally.max_abs),
        _cosine(product, left, right),
        _ulps(task, tally.max_ulp),
        tally.first,
        tally.new_nan,
        tally.lost_nan,
        tally.new_inf,
        tally.lost_inf,
        _scale(max(left, right), tally.finite),
    )


def _cosine_of_equals(tally: Tally) -> float | None:
    if tally.sums:  # of different types, so that numbers were made of them
        _, _, product, left, right = (_total(column) for column in zip(*tally.sums, strict=True))
        return None if _cosine(product, left, right) is None else 1.0
    return 1.0 if tally.some else None


def _cosine(product: float, left: float, right: float) -> float | None:
    """None where a side is all zero, or so small or great that its squares are not float64 values."""
    length = math.sqrt(left * right)  # which is exact for equals
    if not 1e-300 < length < math.inf:
        length = math.sqrt(left) * math.sqrt(right)
    if not 0 < length < math.inf:
        return None
    return max(-1.0, min(1.0, product / length))


def _scale(squares: float, finite: int) -> float | None:
    """The root mean square of the larger side; None where its square is no float64 value."""
    return math.sqrt(squares / finite) if finite and 1e-300 < squares < math.inf else None


def _ulps(task: Task, found: int) -> int | None:
    return found if has_ulps(*task.types) else None


def _total(column: Sequence[float]) -> float:
    """The exact sum, rounded once; infinite where float64 cannot hold it."""
    try:
        return math.fsum(column)
    except (OverflowError, ValueError):
        return math.inf
