"""Measuring: one pass over a checkpoint's bytes turns every extent and every tensor into one small value.

Reads each byte once, in blocks that stay in a core's cache while they are looked at: CRC-32, zero pages, and
NaN, infinity and magnitudes of the tensors there. Memory stays at a few buffers, whatever the size of the
file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING

from ckpttool.errors import Unreadable
from ckpttool.measure import handles
from ckpttool.measure.chunked import add_wholes
from ckpttool.measure.outcome import joined
from ckpttool.measure.plan import UNIT, Plan, plan, units
from ckpttool.measure.running import Progress, pool, throttled
from ckpttool.measure.schemes import Part, combined, measured
from ckpttool.measure.work import run
from ckpttool.measures import Bounds, Measures, SpanMeasure, TensorMeasure
from ckpttool.model import Checkpoint, Tensor
from ckpttool.pool import ordered_map
from ckpttool.source import Source

if TYPE_CHECKING:
    from ckpttool.measure.stats import statistics as statistics

RESTING = frozenset("sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc nested jagged quantized".split())
"""Layouts of tensors whose geometry rests on the values of others."""

BLOCK = 1 << 20
"""Bytes looked at together: they fit into a core's second-level cache; docs/performance.md has numbers."""


def measure(
    checkpoint: Checkpoint,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    sources: Iterable[Source] = (),
    window: int | None = None,
    unit: int = UNIT,
    block: int = BLOCK,
) -> Measures:
    """Measure a checkpoint's whole content; the same for every executor, window, unit and block.

    ``executor`` is any ``concurrent.futures.Executor``, by default as many threads as there are processors.
    ``progress`` is called with bytes done and bytes in all, a few times a second. ``sources`` are used by
    name instead of being opened; those in memory need threads. ``block`` (bytes, a multiple of 4096, at most
    1 GiB) divides ``unit``. Reads all bytes once. Never raises for what a file holds or lacks: a file that
    ends early or cannot be read shows in ``SpanMeasure.read`` and ``Measures.unread``.
    """
    failures: dict[str, str] = {}
    with handles.run(sources) as token:
        made = plan(checkpoint, partial(_size_of, token, failures))
        spans: dict[int, SpanMeasure] = {}
        parts: dict[int, Part] = {}
        report = throttled(progress, made.nbytes)
        with pool(executor, made.nbytes) as chosen:
            for outcome in ordered_map(run, units(made, token, unit, block), chosen, window=window):
                for index, span in outcome.spans:
                    spans[index] = joined(spans[index], span) if index in spans else span
                for index, part in outcome.parts:
                    parts[index] = combined(parts[index], part) if index in parts else part
                if outcome.failure:
                    failures[outcome.source] = outcome.failure
                report(outcome.nbytes)
        tensors = _tensors(checkpoint, made, parts, failures)
        return Measures(
            _by_name(checkpoint, spans),
            tensors,
            made.unread,
            bounds=_bounds(checkpoint, token, tensors),
            nbytes=sum(span.read for span in spans.values()),
        )


def __getattr__(name: str) -> object:
    if name == "statistics":  # needs NumPy
        from ckpttool.measure.stats import statistics

        return statistics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _bounds(checkpoint: Checkpoint, token: str, tensors: Mapping[int, TensorMeasure]) -> dict[int, Bounds]:
    if not any(isinstance(node, Tensor) and node.layout in RESTING for node in checkpoint.nodes):
        return {}
    from ckpttool.measure.bounds import measure_bounds

    return measure_bounds(checkpoint, token, tensors)


def _size_of(token: str, failures: dict[str, str], name: str) -> int:
    try:
        return handles.source_of(token, name).size
    except Unreadable as error:
        failures[name] = error.why
        return 0


def _by_name(checkpoint: Checkpoint, spans: dict[int, SpanMeasure]) -> dict[str, SpanMeasure]:
    """Measures by extent name; of several with one name one that contradicts its checksum, else the first."""
    by_span = {checkpoint.extents[index].span: found for index, found in spans.items()}
    named: dict[str, SpanMeasure] = {}
    for extent in checkpoint.extents:
        found = by_span.get(extent.span)
        if found is None:
            continue
        wrong = extent.checksum is not None and extent.checksum.value != found.crc32
        if wrong or extent.name not in named:
            named[extent.name] = found
    return named


def _tensors(
    checkpoint: Checkpoint, made: Plan, parts: dict[int, Part], failures: dict[str, str]
) -> dict[int, TensorMeasure]:
    """Finished measures by node, twins included; what stayed incomplete joins the plan's ``unread``."""
    found = dict.fromkeys(made.empty, TensorMeasure(0))
    for index, expected in made.expected.items():
        part = parts.get(index)
        tensor = checkpoint.nodes[index]
        assert isinstance(tensor, Tensor)
        if part is not None and part.numel == expected:
            found[index] = measured(part, tensor.dtype, tensor.numel)
        else:
            seen = 0 if part is None else part.numel
            made.unread[index] = f"only {seen} of {expected} elements could be read"
    for index in made.unread:
        why = failures.get(_source_of(checkpoint, index))
        if why is not None:
            made.unread[index] = why
    for first, others in made.twins.items():
        found.update(dict.fromkeys(others, found[first]) if first in found else {})
        made.unread.update(dict.fromkeys(others, made.unread[first]) if first in made.unread else {})
    add_wholes(checkpoint, made, parts, found)
    return found


def _source_of(checkpoint: Checkpoint, index: int) -> str:
    tensor = checkpoint.nodes[index]
    storage = tensor.storage if isinstance(tensor, Tensor) else None
    span = None if storage is None else checkpoint.storages[storage].span
    return "" if span is None else span.source


__all__ = ["BLOCK", "Progress", "measure", "statistics"]
