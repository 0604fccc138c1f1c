"""The compiled pass (``_sweep.c``): the same answers as ``sweep`` with NumPy, sooner, and without loading it.

It takes stored bytes of local files, and elements whose bits it knows. Whatever it meets beyond that (NaN,
infinity, exotic floats, an error of the disk) it leaves to ``sweep``. It is optional: built with the package
where there is a C compiler, used where the processor has what it needs, off if ``CKPTTOOL_NATIVE=0``.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path

from ckpttool.measure.handles import source_of
from ckpttool.measure.outcome import Outcome
from ckpttool.measure.plan import Item, Region, Sweep
from ckpttool.measure.schemes import Part, Scheme, scheme_of
from ckpttool.measures import SpanMeasure, sample_step
from ckpttool.source import LocalFile

LIBRARY = Path(__file__).with_name("_sweep.so")

# Kept in step with ``Item`` and ``Run`` in _sweep.c.
_ITEM = struct.Struct("<qqiiiiQQQQqqqQQQQQqqqqIiii")
_RUN = struct.Struct("<qqq")
_STYLES = {"plain": 0, "bool": 1, "ieee": 2}
_NOTHING = (1 << 64) - 1
_MOST_RUNS = 4096


@cache
def library() -> ctypes.CDLL | None:
    """The compiled pass, None where it was not built or this processor cannot run it."""
    if os.environ.get("CKPTTOOL_NATIVE") == "0" or not LIBRARY.exists():
        return None
    try:
        found = ctypes.CDLL(str(LIBRARY))
        usable = found.ckpttool_supported() and found.ckpttool_item_size() == _ITEM.size
    except (OSError, AttributeError):
        return None
    return found if usable else None


def sweep(unit: Sweep) -> Outcome | None:
    """The whole of a unit, or None where all of it is left to NumPy. Raises ``Unreadable``."""
    compiled = library()
    if compiled is None or unit.place.deflated is not None or unit.place.inline is not None:
        return None
    source = source_of(unit.run, unit.place.source)
    if not isinstance(source, LocalFile):
        return None
    mine = sorted((item for item in unit.items if _is_mine(item)), key=lambda item: item.start)
    results = _call(compiled, source, unit, mine)
    if results is None:
        return None
    outcome, left = results
    left += [item for item in unit.items if not _is_mine(item)]
    return outcome if not left else _with_rest(unit, outcome, tuple(left))


def _is_mine(item: Item) -> bool:
    if isinstance(item, Region):
        return True
    return scheme_of(item.dtype).style in _STYLES and (not item.swapped or item.dtype.bits == 8)


def _call(
    compiled: ctypes.CDLL, source: LocalFile, unit: Sweep, items: list[Item]
) -> tuple[Outcome, list[Item]] | None:
    space = bytearray(_ITEM.size * len(items))
    for place, item in enumerate(items):
        _ITEM.pack_into(space, place * _ITEM.size, *_request(item))
    runs = bytearray(_RUN.size * _MOST_RUNS)
    count, problem = ctypes.c_int64(0), ctypes.c_int32(0)
    active = (ctypes.c_int32 * max(1, len(items)))()
    status = compiled.ckpttool_sweep(
        ctypes.c_int(source.fileno()),
        ctypes.c_int64(unit.start),
        ctypes.c_int64(unit.stop),
        (ctypes.c_char * len(space)).from_buffer(space) if space else None,
        ctypes.c_int64(len(items)),
        (ctypes.c_char * len(runs)).from_buffer(runs),
        ctypes.c_int64(_MOST_RUNS),
        ctypes.byref(count),
        active,
        ctypes.byref(problem),
    )
    return None if status else _read(unit, items, space, _runs(runs, count.value))


def _request(item: Item) -> tuple[int, ...]:
    """An item as the compiled pass takes it, its results empty."""
    results = (0, 0, 0, 0, _NOTHING, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    if isinstance(item, Region):
        return (item.start, item.stop, 0, 1, 1, 0, 0, 0, 0, 0, 1, *results)
    s = scheme_of(item.dtype)
    step = sample_step((item.stop - item.start) // (s.width * s.pair))
    style = _STYLES[s.style]
    return (item.start, item.stop, 1, s.width, s.pair, style, s.mask, s.infinity, s.tiny, s.huge, step, *results)


def _runs(space: bytearray, count: int) -> dict[int, list[tuple[int, int]]]:
    """Runs of zero pages by item."""
    found: dict[int, list[tuple[int, int]]] = {}
    for place, start, stop in _RUN.iter_unpack(bytes(space[: count * _RUN.size])):
        found.setdefault(place, []).append((start, stop))
    return found


def _read(
    unit: Sweep, items: list[Item], space: bytearray, runs: dict[int, list[tuple[int, int]]]
) -> tuple[Outcome, list[Item]]:
    """The results; and the items that need another look."""
    spans: list[tuple[int, SpanMeasure]] = []
    parts: list[tuple[int, Part]] = []
    left: list[Item] = []
    for place, (item, values) in enumerate(zip(items, _ITEM.iter_unpack(bytes(space)), strict=True)):
        read, numel, first, second, low, high, differs, zeros, tiny, huge, _, crc, bad = values[11:24]
        if isinstance(item, Region):
            spans.append((item.index, SpanMeasure(read, crc, tuple(runs.get(place, ())))))
        elif bad:
            left.append(item)
        elif numel:
            scheme = scheme_of(item.dtype)
            parts.append((item.index, _part(scheme, numel, first, second, low, high, differs, zeros, tiny, huge)))
    return Outcome(unit.place.source, tuple(spans), tuple(parts), unit.nbytes), left


def _part(scheme: Scheme, numel: int, first: int, second: int, low: int, high: int, differs: int, *counts: int) -> Part:
    first |= second << 8 * scheme.width
    if not scheme.floating:
        return Part(numel, first, not differs)
    zeros, tiny, huge = counts
    return Part(numel, first, not differs, low, high, zeros=zeros, tiny=tiny, huge=huge)


def _with_rest(unit: Sweep, outcome: Outcome, items: tuple[Item, ...]) -> Outcome:
    """The outcome, and what NumPy finds of the items that are left."""
    from ckpttool.measure import sweep as slow

    rest = slow.sweep(replace(unit, items=items))
    return Outcome(outcome.source, outcome.spans, (*outcome.parts, *rest.parts), outcome.nbytes, rest.failure)
