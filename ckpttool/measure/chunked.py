"""Chunked tensors: their content as that of one tensor, and what was measured of their boxes put together."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ckpttool.boxes import Box, fits, overlap, start_of, uncovered
from ckpttool.measure.boxed import Boxed, Piece, boxed
from ckpttool.measure.plan import Plan, locate
from ckpttool.measure.schemes import Part, combined, measured
from ckpttool.measures import TensorMeasure
from ckpttool.model import Checkpoint, Extent, Span, Tensor


def boxed_of(checkpoint: Checkpoint, tensor: Tensor, deflated: dict[Span, Extent]) -> tuple[Boxed, bool] | None:
    """Where the boxes of a chunked tensor lie, and whether they are big-endian.

    None where some elements are in no box or in two, or not in a file as they are.
    """
    pieces: list[Piece] = []
    orders: set[bool] = set()
    for box, part in boxes_of(checkpoint, tensor):
        piece = _piece(checkpoint, box, part, deflated)
        if piece is None or part.dtype != tensor.dtype or part.storage is None:
            return None
        pieces.append(piece)
        orders.add(checkpoint.storages[part.storage].swapped)
    boxes = [piece.box for piece in pieces]
    if not all(fits(box, tensor.shape) for box in boxes) or uncovered(boxes, tensor.shape) or len(orders) > 1:
        return None
    if overlap(boxes) is not None:
        return None
    return boxed(tensor.shape, tensor.dtype.itemsize, pieces), True in orders


def boxes_of(checkpoint: Checkpoint, tensor: Tensor) -> list[tuple[Box, Tensor]]:
    """The boxes of a chunked tensor that are there, each with the tensor that holds it."""
    found = []
    for name, index in tensor.parts:
        part, start = checkpoint.nodes[index], start_of(name)
        if isinstance(part, Tensor) and start is not None and len(start) == len(part.shape) and part.numel:
            found.append((Box(start, part.shape), part))
    return found


def _piece(checkpoint: Checkpoint, box: Box, part: Tensor, deflated: dict[Span, Extent]) -> Piece | None:
    if part.storage is None or part.layout != "strided" or len(part.stride) != len(part.shape):
        return None
    if min((0, part.offset, *part.shape, *part.stride)) < 0:
        return None
    where = locate(checkpoint.storages[part.storage], deflated)
    if where is None or not where[0].source or where[0].deflated is not None:
        return None
    place, base, nbytes = where
    start = part.offset * part.dtype.itemsize
    if start + part.extent * part.dtype.itemsize > nbytes:
        return None
    return Piece(box, place.source, base + start, part.stride)


def add_wholes(checkpoint: Checkpoint, made: Plan, parts: Mapping[int, Part], found: dict[int, TensorMeasure]) -> None:
    """Add the measures of chunked tensors to those of their boxes, which are the same however they are cut.

    What is in no box, or was not read, makes the whole unread, in the plan's ``unread``.
    """
    first = {other: one for one, others in made.twins.items() for other in others}
    for index, tensor in enumerate(checkpoint.nodes):
        if not isinstance(tensor, Tensor) or tensor.layout != "chunked":
            continue
        if 0 in tensor.shape:
            found[index] = TensorMeasure(0)
            continue
        whole: Part | None = None
        for name, part_index in tensor.parts:
            here = first.get(part_index, part_index)
            start, part = start_of(name), checkpoint.nodes[part_index]
            if here not in parts or part_index in made.unread or start is None or not isinstance(part, Tensor):
                continue
            placed = _placed(parts[here], Box(start, part.shape), tensor.shape)
            whole = placed if whole is None else combined(whole, placed)
        if whole is not None and whole.numel == math.prod(tensor.shape):
            found[index] = measured(whole, tensor.dtype, tensor.numel)
        else:
            made.unread[index] = _why(tensor, whole, made)


def _placed(part: Part, box: Box, shape: tuple[int, ...]) -> Part:
    """What is known of a box, with its first bad element counted in the whole."""
    if part.first_bad is None or len(box.start) != len(shape):
        return part
    rest, weight, index = part.first_bad, 1, 0
    for start, size, whole in reversed(list(zip(box.start, box.shape, shape, strict=True))):
        rest, coordinate = divmod(rest, size)
        index += (start + coordinate) * weight
        weight *= whole
    return Part(
        part.numel, part.first, part.same, part.low, part.high, part.nan, part.inf, index, part.zeros,
        part.tiny, part.huge, part.odd,
    )  # fmt: skip


def _why(tensor: Tensor, whole: Part | None, made: Plan) -> str:
    lost = next((made.unread[index] for _, index in tensor.parts if index in made.unread), "")
    seen = 0 if whole is None else whole.numel
    tail = f": {lost}" if lost else ", the rest is in no chunk that is there"
    return f"only {seen} of {tensor.numel} elements could be read{tail}"
