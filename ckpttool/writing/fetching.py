"""The elements of tensors that lie in files, read by span and seen through their strides."""

from __future__ import annotations

import sys

import numpy as np

from ckpttool.draft import Copied, Input
from ckpttool.dtypes import DType
from ckpttool.errors import Unreadable, printable
from ckpttool.expressions import OpError
from ckpttool.model import Span, Tensor
from ckpttool.source import Source, open_source
from ckpttool.writing.elements import carrier
from ckpttool.writing.streams import chunks

REPEATED = 1 << 30
"""Bytes that a view may take when it repeats its elements more than ``MOST_REPEATS`` times."""

MOST_REPEATS = 4096


def fetched(given: Input, opened: dict[str, Source]) -> np.ndarray:
    """A tensor's bits in this machine's byte order, as a view of the bytes from its first element to its last.

    ``opened`` keeps sources by name. Raises ``OpError`` where the tensor does not fit its storage, ``Unreadable``
    where the file cannot be read as far as it says.
    """
    tensor, storage = given.tensor, given.storage
    start, stop = byte_range(given)
    data = _bytes(given, start, stop, opened)
    if tensor.dtype.bits % 8:
        return data
    component = component_width(tensor.dtype)
    if component > 1 and storage.swapped == (sys.byteorder == "little"):
        data.view(f"u{component}").byteswap(inplace=True)
    flat = data.view(carrier(tensor.dtype))
    width = flat.itemsize
    strides = tuple(step * width for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)


def component_width(dtype: DType) -> int:
    """Bytes that change places where the byte order differs: an element, or one half of a complex one."""
    return dtype.itemsize // 2 if dtype.kind == "complex" else dtype.itemsize


def byte_range(given: Input) -> tuple[int, int]:
    """The first byte of the tensor's elements within its storage, and the one past the last."""
    tensor, storage = given.tensor, given.storage
    name = printable(given.name)
    _check(name, tensor)
    if 0 in tensor.shape:  # a slice of nothing may begin past the storage's end
        return 0, 0
    start = tensor.offset * tensor.dtype.bits // 8
    stop = start + tensor.dtype.nbytes(tensor.extent)
    have = storage.nbytes if storage.inline is None else len(storage.inline)
    if stop > have:
        raise OpError(f"{name}: needs bytes {start} to {stop} of a storage that has {have}")
    if storage.inline is None and storage.span is None and stop > start:
        raise OpError(f"{name}: its {stop - start} bytes are not in the file")
    return start, stop


def _check(name: str, tensor: Tensor) -> None:
    shape, stride = tensor.shape, tensor.stride
    if len(shape) != len(stride):
        raise OpError(f"{name}: {len(shape)} sizes and {len(stride)} strides")
    if min((0, tensor.offset, *shape, *stride)) < 0:
        raise OpError(f"{name}: shape {shape}, strides {stride} or offset {tensor.offset} lie below 0")
    if tensor.dtype.bits % 8 and not (tensor.contiguous and tensor.offset * tensor.dtype.bits % 8 == 0):
        raise OpError(f"{name}: a strided view of elements of {tensor.dtype.bits} bits, where whole bytes are 8")
    if tensor.nbytes > REPEATED and tensor.numel > MOST_REPEATS * max(tensor.extent, 1):
        raise OpError(f"{name}: {tensor.numel} elements are made of {tensor.extent}")


def _bytes(given: Input, start: int, stop: int, opened: dict[str, Source]) -> np.ndarray:
    """A range of a storage's bytes in memory of their own, so that no mapped file can shrink beneath it."""
    storage = given.storage
    if storage.inline is not None:
        return np.frombuffer(bytearray(storage.inline[start:stop]), "u1")
    made = np.empty(stop - start, "u1")
    if storage.span is None or not len(made):
        return made
    span = storage.span
    if given.inflates_to is not None:
        _inflate(given, start, made)
        return made
    if span.nbytes < stop:
        raise Unreadable(
            span.source,
            f"bytes {start} to {stop} of a storage are needed, the file has {span.nbytes} of it as they are",
        )
    source = source_of(span, opened)
    got = source.readinto(span.start + start, made.data)
    if got < len(made):
        raise Unreadable(span.source, f"ends at byte {span.start + start + got}, {span.start + stop} are needed")
    return made


def _inflate(given: Input, start: int, made: np.ndarray) -> None:
    """Fill ``made`` with what a deflated span stands for from byte ``start`` on; what lies before is passed over."""
    assert given.storage.span is not None
    position, stop = 0, start + len(made)
    for block in chunks(Copied((given.storage.span,), inflates_to=given.inflates_to)):
        first, last = max(start, position), min(stop, position + len(block))
        if first < last:
            made[first - start : last - start] = np.frombuffer(block, "u1")[first - position : last - position]
        position += len(block)
        if position >= stop:
            return
    raise Unreadable(
        given.storage.span.source, f"bytes {start} to {stop} of a storage are needed, the file has {position} of it"
    )


def source_of(span: Span, opened: dict[str, Source]) -> Source:
    """The source of a span, opened once."""
    if span.source not in opened:
        opened[span.source] = open_source(span.source)
    return opened[span.source]
