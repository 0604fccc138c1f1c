"""What to read: a checkpoint as byte ranges, sorted by place, and those cut into work units that pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import TypeAlias

from ckpttool.dtypes import DType
from ckpttool.frozen import dataclass
from ckpttool.measure.boxed import Boxed
from ckpttool.measure.geometry import Order, order_of
from ckpttool.model import Checkpoint, Extent, Span, Storage, Tensor

UNIT = 8 << 20
"""Bytes of a file that one work unit covers: its hand-over costs nothing, and 64 threads all get some."""

SLACK = 1 << 20
MOST_VIEWS = 16
"""Times that different views of one storage, or records that overlap, may ask for the same bytes."""

MOST_INFLATED = 256 << 20
"""Bytes of a deflated record that are held in memory for the sake of a strided view."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes come from: a file, a deflated span of it (inflating to ``size`` bytes), memory, or many boxes."""

    source: str
    deflated: Span | None = None
    inline: bytes | None = None
    size: int = 0
    boxed: Boxed | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes whose CRC-32 and zero pages are wanted: a piece of extent ``index``."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Range:
    """A tensor's elements, without gaps from byte ``start`` on; ``order`` where they are not row-major.

    ``index`` is the first node that has it. ``stop`` is just past the last element.
    """

    index: int
    start: int
    stop: int
    dtype: DType
    swapped: bool
    order: Order | None = None

    @property
    def elements(self) -> int:
        """Elements at different addresses; whole bytes for packed and sub-byte types."""
        if self.order is not None:
            return self.order.numel
        width = self.dtype.itemsize if self.dtype.bits % 8 == 0 else 1
        return (self.stop - self.start) // width


Item: TypeAlias = "Region | Range"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A work unit: read bytes ``start`` to ``stop`` of a place once, and look at the items there."""

    run: str
    place: Place
    start: int
    stop: int
    items: tuple[Item, ...]
    block: int

    @property
    def nbytes(self) -> int:
        """Bytes of all items here, each counted as often as it is looked at."""
        return sum(max(0, min(i.stop, self.stop) - max(i.start, self.start)) for i in self.items)


@dataclass(frozen=True, slots=True)
class Gather:
    """A work unit: look at one tensor whose elements lie apart."""

    run: str
    place: Place
    item: Range
    block: int

    @property
    def nbytes(self) -> int:
        """Bytes from the first element to just past the last."""
        return self.item.stop - self.item.start


Unit: TypeAlias = "Sweep | Gather"


@dataclass(slots=True)
class Plan:
    """Everything to read, by place; what cannot be read, and why; which nodes are the same view."""

    items: dict[Place, list[Item]]
    gathers: list[tuple[Place, Range]]
    unread: dict[int, str]
    twins: dict[int, list[int]]
    empty: list[int]

    @property
    def expected(self) -> dict[int, int]:
        """How many elements each tensor to be read has, addresses that repeat counted once."""
        swept = [item for items in self.items.values() for item in items if isinstance(item, Range)]
        return {item.index: item.elements for item in [*swept, *(item for _, item in self.gathers)]}

    @property
    def nbytes(self) -> int:
        """Bytes of all items, each counted as often as it is looked at."""
        swept = sum(item.stop - item.start for items in self.items.values() for item in items)
        return swept + sum(item.stop - item.start for _, item in self.gathers)


def plan(checkpoint: Checkpoint, size_of: Callable[[str], int]) -> Plan:
    """Decide what to read. ``size_of`` gives a source's size in bytes, 0 where it cannot be opened."""
    made = Plan({}, [], {}, {}, [])
    size_of = cache(size_of)
    _plan_extents(checkpoint, size_of, made)
    deflated = {e.span: e for e in checkpoint.extents if e.method != "stored"}
    views: dict[tuple[object, ...], int] = {}
    asked: dict[int, int] = {}
    for index, tensor in enumerate(checkpoint.nodes):
        if not isinstance(tensor, Tensor) or tensor.storage is None:
            continue
        key = (tensor.storage, tensor.dtype.name, tensor.offset, tensor.shape, tensor.stride)
        first = views.setdefault(key, index)
        if first == index:
            _plan_tensor(index, tensor, checkpoint.storages[tensor.storage], deflated, asked, made, size_of)
        else:
            made.twins.setdefault(first, []).append(index)
    return made


def _plan_extents(checkpoint: Checkpoint, size_of: Callable[[str], int], made: Plan) -> None:
    seen: set[Span] = set()
    asked: dict[str, int] = {}
    for index, extent in enumerate(checkpoint.extents):
        place, (start, stop) = _place_of(extent), (extent.span.start, extent.span.stop)
        asked[place.source] = asked.get(place.source, 0) + max(0, stop - start)
        within = asked[place.source] <= MOST_VIEWS * size_of(place.source) + SLACK
        if extent.method not in ("stored", "deflate") or extent.span in seen or not within:
            continue
        seen.add(extent.span)
        start, stop = (0, place.size) if place.deflated else (max(0, start), min(stop, size_of(place.source)))
        made.items.setdefault(place, []).append(Region(index, start, max(start, stop)))


def _place_of(extent: Extent) -> Place:
    if extent.method == "deflate":
        return Place(extent.span.source, deflated=extent.span, size=max(0, extent.size or 0))
    return _file(extent.span.source)


@lru_cache(64)
def _file(source: str) -> Place:
    return Place(source)


def _plan_tensor(
    index: int,
    tensor: Tensor,
    storage: Storage,
    deflated: dict[Span, Extent],
    asked: dict[int, int],
    made: Plan,
    size_of: Callable[[str], int],
) -> None:
    if 0 in tensor.shape:
        made.empty.append(index)
        return
    order = None if tensor.contiguous else _order_if_valid(tensor)
    where = locate(storage, deflated)
    why = _why_not(tensor, order, where)
    if where is None or why:
        made.unread[index] = why
        return
    place, base, nbytes = where
    start = tensor.offset * tensor.dtype.bits // 8
    span = tensor.dtype.nbytes(tensor.numel if order is None else order.extent)
    if start + span > nbytes:
        made.unread[index] = f"it needs bytes {start} to {start + span} of a storage that has {nbytes}"
        return
    if place.source and not place.deflated and base + start + span > size_of(place.source):
        made.unread[index] = f"the file ends at byte {size_of(place.source)}, its bytes at {base + start + span}"
        return
    assert tensor.storage is not None
    asked[tensor.storage] = asked.get(tensor.storage, 0) + span
    if asked[tensor.storage] > MOST_VIEWS * nbytes + SLACK:
        made.unread[index] = f"its storage has views that ask for its bytes more than {MOST_VIEWS} times"
        return
    item = Range(index, base + start, base + start + span, tensor.dtype, storage.swapped, order)
    if order is None or order.dense:
        made.items.setdefault(place, []).append(item)
    else:
        made.gathers.append((place, item))


def _order_if_valid(tensor: Tensor) -> Order | None:
    same_rank = len(tensor.shape) == len(tensor.stride)
    return order_of(tensor) if same_rank and min((*tensor.shape, *tensor.stride)) >= 0 else None


def locate(storage: Storage, deflated: dict[Span, Extent]) -> tuple[Place, int, int] | None:
    """The place of a storage's bytes, the byte of it where they begin, and how many there are."""
    if storage.inline is not None:
        return Place("", inline=storage.inline, size=len(storage.inline)), 0, len(storage.inline)
    if storage.span is None:
        return None
    extent = deflated.get(storage.span)
    if extent is None:
        return _file(storage.span.source), storage.span.start, storage.span.nbytes
    if extent.method != "deflate":
        return None
    place = _place_of(extent)
    return place, 0, place.size


def _why_not(tensor: Tensor, order: Order | None, where: tuple[Place, int, int] | None) -> str:
    if where is None:
        return "its bytes are not in the file, or in no encoding that this tool reads"
    if len(tensor.shape) != len(tensor.stride) or tensor.offset < 0:
        return "its shape, stride and offset do not fit together"
    if order is None:
        whole = min((1, *tensor.shape)) > 0 and (tensor.contiguous or not tensor.shape)
        aligned = tensor.offset * tensor.dtype.bits % 8 == 0
        return "" if whole and aligned else "its shape, stride and offset do not fit together"
    if tensor.dtype.bits % 8:
        return f"it is a strided view of elements of {tensor.dtype.bits} bits"
    if order.numel > MOST_VIEWS * order.extent:
        return f"it addresses the same bytes more than once: {tensor.numel} elements over {order.extent}"
    if not order.dense and where[0].deflated and where[0].size > MOST_INFLATED:
        return f"it is a strided view of a deflated record of {where[0].size} bytes"
    return ""


def units(made: Plan, run: str, unit: int, block: int) -> Iterator[Unit]:
    """The plan's work units, sweeps first. Files are cut at multiples of ``unit`` bytes, the rest is not."""
    for place, items in made.items.items():
        whole = place.deflated is not None or place.inline is not None
        for start, stop, inside in windows(items, max(place.size, 1) if whole else unit):
            yield Sweep(run, place, start, stop, tuple(_clipped(inside, start, stop)), block)
    for place, item in made.gathers:
        yield Gather(run, place, item, block)


def _clipped(items: Iterable[Item], start: int, stop: int) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Region):
            yield Region(item.index, max(item.start, start), min(item.stop, stop))
        else:
            yield item


def windows(items: Sequence[Item], step: int, begin: int = 0) -> Iterator[tuple[int, int, list[Item]]]:
    """Cut a place at multiples of ``step`` bytes: ``(start, stop, items there)``, none without items.

    The first begins at byte ``begin``, a multiple of ``step``, or later.
    Costs one step for each pair of a window and an item in it; an empty item comes in the window of its
    start.
    """
    ordered = sorted(items, key=lambda item: item.start)
    active: list[Item] = []
    following, at = 0, begin
    while active or following < len(ordered):
        if not active:
            at = max(at, ordered[following].start // step * step)
        end = at + step
        while following < len(ordered) and ordered[following].start < end:
            active.append(ordered[following])
            following += 1
        yield at, end, list(active)
        active = [item for item in active if item.stop > end]
        at = end
