"""Tensors that others rest on: indices of sparse, offsets of nested, scales of quantized ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ckpttool.errors import Unreadable
from ckpttool.measure import RESTING
from ckpttool.measure.leaves import Content, content_of, leaves
from ckpttool.measure.values import numbers
from ckpttool.measures import Bounds, TensorMeasure
from ckpttool.model import Checkpoint, Tensor

MOST_ROWS = 64
MOST_VALUES = 4096
MOST_BYTES = 1 << 30
"""Bytes of all such tensors that are looked at a second time; a model's own are far smaller."""

_FLOAT_PARTS = ("quantizer",)


def measure_bounds(checkpoint: Checkpoint, run: str, measured: Mapping[int, TensorMeasure]) -> dict[int, Bounds]:
    """Bounds of the measured parts of sparse, nested, jagged and quantized tensors, by node."""
    found: dict[int, Bounds] = {}
    left = MOST_BYTES
    for index in dict.fromkeys(_wanted(checkpoint)):
        content = content_of(checkpoint, index, run) if index in measured else None
        if content is None or content.tensor.nbytes > left:
            continue
        left -= content.tensor.nbytes
        try:
            found[index] = _bounds(content)
        except Unreadable:
            continue  # the tensor's own measure has said why
    return found


def _wanted(checkpoint: Checkpoint) -> Iterator[int]:
    for node in checkpoint.nodes:
        if isinstance(node, Tensor) and node.layout in RESTING:
            for name, part in node.parts:
                inner = checkpoint.nodes[part]
                if isinstance(inner, Tensor) and (inner.dtype.kind == "int" or name.startswith(_FLOAT_PARTS)):
                    yield part


def _bounds(content: Content) -> Bounds:
    tensor = content.tensor
    rows = tensor.shape[0] if len(tensor.shape) == 2 and tensor.shape[0] <= MOST_ROWS else 1
    length = tensor.numel // max(rows, 1)
    found: list[tuple[float, float]] = []
    values: list[float] = []
    ascending, at = True, 0
    before: float | None = None
    first: float = 0
    for leaf in leaves(content):
        array = numbers(leaf, tensor.dtype)
        first = array[0].item() if before is None else first
        for start, piece in _by_row(array, at, length):
            low, high = piece.min().item(), piece.max().item()
            new = start % length == 0
            found = [*found, (low, high)] if new else [*found[:-1], _wider(found[-1], low, high)]
            ascending &= bool((piece[1:] >= piece[:-1]).all()) and (new or before is None or piece[0] >= before)
            before = piece[-1].item()
        at += len(array)
        values += array.tolist() if tensor.numel <= MOST_VALUES else []
    return Bounds(tensor.numel, tuple(found), bool(ascending), first, before or 0, tuple(values))


def _by_row(array: np.ndarray, at: int, length: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces that stay within a row of ``length``: where each begins in the tensor, and its elements."""
    start = 0
    while start < len(array):
        stop = min(len(array), start + length - (at + start) % length)
        yield at + start, array[start:stop]
        start = stop


def _wider(row: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    return min(row[0], low), max(row[1], high)
