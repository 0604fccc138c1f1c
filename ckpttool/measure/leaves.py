"""A tensor's logical content, row-major, in leaves of a fixed number of elements, whatever its strides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.boxes import row_major
from ckpttool.dtypes import BYTE
from ckpttool.frozen import dataclass
from ckpttool.measure.boxed import Boxed
from ckpttool.measure.chunked import boxed_of
from ckpttool.measure.handles import source_of
from ckpttool.measure.kernels import Bits, view
from ckpttool.measure.plan import MOST_INFLATED, MOST_VIEWS, SLACK, Place, locate
from ckpttool.measure.reading import buffer_of, opened
from ckpttool.measure.schemes import Scheme, scheme_of
from ckpttool.model import Checkpoint, Extent, Span, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAF = 1 << 16
"""Elements of a leaf."""


@dataclass(frozen=True, slots=True)
class Content:
    """Where a tensor's content lies, so that it pickles: bytes ``start`` to ``stop`` of a place."""

    run: str
    place: Place
    tensor: Tensor
    start: int
    stop: int
    swapped: bool


def deflated_extents(checkpoint: Checkpoint) -> dict[Span, Extent]:
    """The extents that are not stored as they are, by where they lie: what ``content_of`` looks up."""
    return {e.span: e for e in checkpoint.extents if e.method != "stored"}


def content_of(
    checkpoint: Checkpoint, index: int, run: str, deflated: dict[Span, Extent] | None = None
) -> Content | None:
    """The content of the tensor at a node, that of the whole for a chunked one; None where not all is in the file.

    Views that spell out to more than ``MOST_VIEWS`` times their storage have none either. ``deflated`` is
    ``deflated_extents(checkpoint)``, for callers that ask for many tensors.
    """
    tensor = checkpoint.nodes[index]
    if not isinstance(tensor, Tensor) or tensor.dtype.bits % 8:
        return None
    return _content(checkpoint, tensor, run, deflated)


def packed_content_of(
    checkpoint: Checkpoint, index: int, run: str, deflated: dict[Span, Extent] | None = None
) -> Content | None:
    """The content of a row-major tensor of elements narrower than a byte, as a tensor of its bytes."""
    tensor = checkpoint.nodes[index]
    if not isinstance(tensor, Tensor) or not tensor.dtype.bits % 8 or not tensor.contiguous:
        return None
    if tensor.layout == "chunked":
        return None
    begin, odd = divmod(tensor.offset * tensor.dtype.bits, 8)
    if odd or min((0, *tensor.shape)) < 0:
        return None
    as_bytes = replace(tensor, dtype=BYTE, shape=(tensor.nbytes,), stride=(1,), offset=begin)
    return _content(checkpoint, as_bytes, run, deflated)


def _content(checkpoint: Checkpoint, tensor: Tensor, run: str, deflated: dict[Span, Extent] | None) -> Content | None:
    if tensor.layout == "chunked":
        found = boxed_of(checkpoint, tensor, deflated_extents(checkpoint) if deflated is None else deflated)
        return None if found is None else _boxed(tensor, run, *found)
    if tensor.storage is None:
        return None
    if len(tensor.shape) != len(tensor.stride) or min((0, tensor.offset, *tensor.shape, *tensor.stride)) < 0:
        return None
    storage = checkpoint.storages[tensor.storage]
    where = locate(storage, deflated_extents(checkpoint) if deflated is None else deflated)
    start = tensor.offset * tensor.dtype.itemsize
    stop = start + tensor.extent * tensor.dtype.itemsize
    if where is None or stop > where[2] or tensor.nbytes > MOST_VIEWS * where[2] + SLACK:
        return None
    place, base, _ = where
    if not tensor.contiguous and place.deflated and place.size > MOST_INFLATED:
        return None
    return Content(run, place, tensor, base + start, base + stop, storage.swapped)


def _boxed(tensor: Tensor, run: str, found: Boxed, swapped: bool) -> Content:
    whole = replace(tensor, offset=0, stride=row_major(tensor.shape))
    return Content(run, Place("", size=tensor.nbytes, boxed=found), whole, 0, tensor.nbytes, swapped)


def leaves(content: Content, slot: int = 0) -> Iterator[Bits]:
    """The leaves in order, each valid until the next; fewer where the file ends. Raises ``Unreadable``.

    ``slot`` names the buffer: leaves of two tensors at a time need two.
    """
    scheme = scheme_of(content.tensor.dtype)
    if 0 in content.tensor.shape:
        return iter(())
    if content.tensor.contiguous:
        return _in_order(content, scheme, slot)
    return rechunked(_strided(content, scheme), LEAF * scheme.pair)


def _in_order(content: Content, scheme: Scheme, slot: int) -> Iterator[Bits]:
    readable = opened(content.run, content.place, whole=False)
    width = scheme.width * scheme.pair
    space = buffer_of(LEAF * width, slot)
    for start in range(content.start, content.stop, LEAF * width):
        wanted = min(LEAF * width, content.stop - start)
        got = readable.readinto(start, space[:wanted]) // width
        if got:
            yield view(space, 0, got, scheme, content.swapped)
        if got * width < wanted:
            return


def _strided(content: Content, scheme: Scheme) -> Iterator[Bits]:
    """Row-major pieces of at most a leaf. Large spans are mapped: only the pages in use are held."""
    place = content.place
    if place.source and not place.deflated:
        data = memoryview(source_of(content.run, place.source).window(content.start, content.stop))
    else:
        data = memoryview(bytearray(content.stop - content.start))
        data = data[: opened(content.run, place, whole=True).readinto(content.start, data)]
    if len(data) < content.stop - content.start:
        return
    array = _shaped(data, content.tensor, scheme)
    for piece in _chunks(array, content.tensor.shape):
        flat = np.ascontiguousarray(piece).reshape(-1)
        yield flat.byteswap() if content.swapped else flat


def _shaped(data: memoryview, tensor: Tensor, scheme: Scheme) -> NDArray[np.unsignedinteger]:
    flat = np.frombuffer(data, f"u{scheme.width}")
    steps = tuple(s * scheme.width * scheme.pair for s in tensor.stride)
    shape, steps = (*tensor.shape, scheme.pair), (*steps, scheme.width)
    return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)


def _chunks(array: NDArray[np.unsignedinteger], shape: tuple[int, ...]) -> Iterator[NDArray[np.unsignedinteger]]:
    """Cut along the first dimensions so that no piece has more than a leaf's elements."""
    axis = next((k for k in range(len(shape)) if math.prod(shape[k + 1 :]) <= LEAF), len(shape) - 1)
    many = max(1, LEAF // math.prod(shape[axis + 1 :]))
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], many):
            yield array[outer][start : start + many]


def rechunked(pieces: Iterable[Bits], size: int) -> Iterator[Bits]:
    """The same elements in pieces of exactly ``size``, but for the last."""
    held: list[Bits] = []
    for piece in pieces:
        rest = piece
        while sum(map(len, held)) + len(rest) >= size:
            need = size - sum(map(len, held))
            yield np.concatenate([*held, rest[:need]])
            held, rest = [], rest[need:]
        if len(rest):
            held.append(rest)
    if held:
        yield np.concatenate(held)
