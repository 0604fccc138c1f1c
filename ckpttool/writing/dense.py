"""The row-major, little-endian bytes of a draft's tensors: copied as they lie where they lie so, else gathered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

from ckpttool.draft import Content, Copied, Draft, Held, Made
from ckpttool.model import Span, Tensor
from ckpttool.writing.streams import chunks

Piece: TypeAlias = "Span | memoryview"
"""A range of a file that is to be copied, or bytes at hand."""

PIECE = 64 << 20
"""Bytes of a view that are gathered at a time."""


def pieces(draft: Draft, tensor: Tensor) -> Iterator[Piece]:
    """The tensor's bytes, in order. What must be gathered takes the memory of the range that it looks into."""
    if not tensor.numel:
        return
    start = tensor.offset * tensor.dtype.bits // 8
    stop = start + tensor.dtype.nbytes(tensor.extent)
    content = _content(draft, tensor)
    if not _as_it_lies(draft, tensor):
        yield from _gathered(joined(content, start, stop), tensor, swapped=_is_swapped(draft, tensor))
    elif isinstance(content, Copied) and content.inflates_to is None:
        yield from cut(content.spans, start, stop)
    else:
        yield joined(content, start, stop)


def joined(content: Content, start: int, stop: int) -> memoryview:
    """A range of a content in memory."""
    if isinstance(content, Copied) and content.inflates_to is None:
        content, start, stop = Copied(tuple(cut(content.spans, start, stop))), 0, stop - start
    if isinstance(content, Held):
        return memoryview(content.data)[start:stop]
    found = [memoryview(chunk).cast("B") for chunk in chunks(content)]
    whole = found[0] if len(found) == 1 else memoryview(b"".join(found))
    return whole[start:stop]


def cut(spans: tuple[Span, ...], start: int, stop: int) -> Iterator[Span]:
    """The bytes from ``start`` to ``stop`` of ranges laid end to end."""
    at = 0
    for span in spans:
        first, last = max(start, at), min(stop, at + span.nbytes)
        if first < last:
            yield Span(span.source, span.start + first - at, span.start + last - at)
        at += span.nbytes


def _content(draft: Draft, tensor: Tensor) -> Content:
    assert tensor.storage is not None
    return draft.contents[tensor.storage]


def _is_swapped(draft: Draft, tensor: Tensor) -> bool:
    """Whether the content is big-endian; what is computed never is."""
    assert tensor.storage is not None
    return draft.checkpoint.storages[tensor.storage].swapped and not isinstance(_content(draft, tensor), Made)


def _as_it_lies(draft: Draft, tensor: Tensor) -> bool:
    return tensor.contiguous and not (_is_swapped(draft, tensor) and tensor.dtype.bits > 8)


def _gathered(data: memoryview, tensor: Tensor, *, swapped: bool) -> Iterator[memoryview]:
    """The elements of a view in row-major order, as bytes in pieces of about ``PIECE``."""
    import numpy as np

    width = tensor.dtype.itemsize
    part = width // 2 if tensor.dtype.kind == "complex" else width
    flat = np.frombuffer(data, f"u{part}")
    shape = (*(tensor.shape or (1,)), width // part)
    steps = (*(step * width for step in tensor.stride or (0,)), part)
    view = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
    # Cut along the first dimensions until what follows is small enough.
    axis = next((k for k in range(len(shape) - 1) if math.prod(shape[k + 1 :]) * part <= PIECE), len(shape) - 2)
    rows = max(1, PIECE // max(math.prod(shape[axis + 1 :]) * part, 1))
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], rows):
            found = np.ascontiguousarray(view[outer][start : start + rows])
            yield (found.byteswap() if swapped else found).reshape(-1).view(np.uint8).data
