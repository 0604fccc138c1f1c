"""Whole pages of a tensor are zero where the rest is not.

What: Inside a tensor lie runs of zeros that begin and end at multiples of 4096 bytes of the file, while of
its other elements less than 1 % are zero. The finding gives the byte ranges. Where a recorded CRC-32 proves
the bytes, nothing is reported; where it contradicts them, the runs say which part was lost. Without a
checksum only weights are judged, and runs that rows of zeros explain (padding, pruning, embeddings) are
left out.

Why: The values there are lost. Loading reports nothing, and the model computes with zeros.

Cause: Pages that a crash, a full disk or an interrupted copy never wrote: file systems give zeros for them.

Remedy: Fetch the file again, or take the previous checkpoint. `ckpttool inspect
FILE --stats --only KEY` on both shows what was lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import Measured, contradicted, file_range, listed, measured, proved
from ckpttool.checks._places import Fault
from ckpttool.measures import PAGE, Measures, sample_step
from ckpttool.model import Damage, Json, Storage
from ckpttool.rules import Context

_SPARSE = 0.01
_NAMES = ("emb", "wte", "wpe", "mask", "lora_b", "pos")

Runs = list[tuple[int, int]]


@judges(__doc__, "CK104", "zero-run", "error", axis="integrity", content=True)
def zero_run(context: Context) -> Iterator[Damage]:
    """Dense tensors with lost pages."""
    runs = {} if context.measures is None else _runs(context, context.measures)
    if not runs:
        return
    wrong, good = contradicted(context), proved(context)
    found: list[tuple[str, Fault]] = []
    for one in measured(context, lambda m: not m.all_zero):
        storage = context.checkpoint.storages[one.tensor.storage or 0]
        if storage.record in good or not one.tensor.contiguous:
            continue
        inside = _inside(one, storage, runs)
        if inside and _dense(one, storage, inside):
            certain = storage.record in wrong
            kept = inside if certain else [r for r in inside if _odd(one, storage, r)]
            if kept:
                found.append((one.key, _fault(one, kept)))
    yield from listed("zero-run", found)


def _runs(context: Context, measures: Measures) -> dict[str, Runs]:
    by_source: dict[str, Runs] = {}
    for extent in context.checkpoint.extents:
        found = measures.spans.get(extent.name)
        if found is not None and found.zero_runs:
            by_source.setdefault(extent.span.source, []).extend(found.zero_runs)
    return {source: sorted(set(runs)) for source, runs in by_source.items()}


def _inside(one: Measured, storage: Storage, runs: dict[str, Runs]) -> Runs:
    """The parts of zero runs that lie in the tensor, in bytes of the file, cut to whole pages within it."""
    place = file_range(one.tensor, storage)
    if place is None or storage.span is None:
        return []
    low, high = -(-place[0] // PAGE) * PAGE, place[1] // PAGE * PAGE
    mine = runs.get(storage.span.source, [])
    first = max(0, bisect_left(mine, (low, low)) - 1)
    found: Runs = []
    for start, stop in mine[first:]:
        if start >= high:
            break
        if stop > low:
            found.append((max(start, low), min(stop, high)))
    return found


def _dense(one: Measured, storage: Storage, runs: Runs) -> bool:
    """Whether the elements outside the runs are hardly ever zero, told from the samples."""
    m = one.measure
    if one.tensor.dtype.kind != "float" or not m.sampled:
        return False
    place = file_range(one.tensor, storage)
    assert place is not None
    width = one.tensor.dtype.itemsize
    step = sample_step(m.numel) * width
    within = sum(-((place[0] - stop) // step) + (place[0] - start) // step for start, stop in runs)
    outside = m.sampled - within
    return outside > 0 and m.zeros - within < _SPARSE * outside


def _odd(one: Measured, storage: Storage, run: tuple[int, int]) -> bool:
    """Whether nothing but lost pages explains a run where no checksum speaks."""
    key = one.key.lower()
    if one.section != "weights" or any(name in key for name in _NAMES) or len(one.tensor.shape) < 2:
        return False
    place = file_range(one.tensor, storage)
    assert place is not None
    if run[0] - place[0] < PAGE or place[1] - run[1] < PAGE:
        return False  # padding at either end
    row = one.tensor.nbytes // one.tensor.shape[0]
    before, after = (run[0] - place[0]) % row, -(run[1] - place[0]) % row
    return row < PAGE or not (before < PAGE and after < PAGE)  # rows that were pruned


def _fault(one: Measured, runs: Runs) -> Fault:
    lost = sum(stop - start for start, stop in runs)
    ranges = ", ".join(f"{start}–{stop}" for start, stop in runs[:4]) + (", …" if len(runs) > 4 else "")
    message = f"{lost} of its {one.tensor.nbytes} bytes are zero in whole pages, at bytes {ranges} of the file"
    pairs: list[Json] = [[start, stop] for start, stop in runs]
    return message, {"nbytes": one.tensor.nbytes, "zero": lost, "ranges": pairs}
