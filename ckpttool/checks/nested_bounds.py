"""A nested tensor's components reach outside its buffer.

What: The sizes, strides and offsets of a nested tensor, or the offsets of a jagged one, address elements
before the start or past the end of the values that they share. The finding gives both numbers.

Why: torch refuses some of these on loading and reads memory outside the buffer for others.

Cause: Damaged bytes, a tensor edited by hand, or a file made to crash its reader.

Remedy: Do not use the tensor. Fetch the file again; if it comes from someone else, treat it as hostile.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed
from ckpttool.checks._places import Fault, keys_of
from ckpttool.measures import Bounds, Measures
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.rules import Context


@judges(__doc__, "CK310", "nested-bounds", "error", axis="integrity", content=True)
def nested_bounds(context: Context) -> Iterator[Damage]:
    """Nested and jagged tensors whose components do not fit."""
    if context.measures is None:
        return
    faults: dict[int, Fault] = {}
    for index, node in enumerate(context.checkpoint.nodes):
        if isinstance(node, Tensor) and node.layout in ("nested", "jagged"):
            judged = (_nested if node.layout == "nested" else _jagged)(context.checkpoint, context.measures, node)
            if judged is not None:
                faults[index] = judged
    places = keys_of(context.checkpoint, faults) if faults else {}
    yield from listed("nested-bounds", [(places[i], fault) for i, fault in faults.items()], "nested tensors")


def _nested(checkpoint: Checkpoint, measures: Measures, tensor: Tensor) -> Fault | None:
    parts = dict(tensor.parts)
    buffer = checkpoint.nodes[parts["buffer"]]
    shapes = checkpoint.nodes[parts["sizes"]]
    known = [measures.bounds.get(parts[name]) for name in ("sizes", "strides", "offsets")]
    if not isinstance(buffer, Tensor) or not isinstance(shapes, Tensor) or len(shapes.shape) != 2:
        return None
    count, dims = shapes.shape
    sizes, strides, offsets = (() if b is None else b.values for b in known)
    if len(sizes) != count * dims or len(strides) != len(sizes) or len(offsets) != count:
        return None
    for i in range(count):
        size, stride = sizes[i * dims : (i + 1) * dims], strides[i * dims : (i + 1) * dims]
        low, high = _reach(size, stride, offsets[i])
        if low < 0 or high > buffer.numel or min(size, default=0) < 0:
            message = f"component {i} needs elements {low} to {high} of a buffer that has {buffer.numel}"
            return message, {"component": i, "needs": high, "have": buffer.numel}
    return None


def _reach(size: tuple[float, ...], stride: tuple[float, ...], offset: float) -> tuple[float, float]:
    """The first element and just past the last one that a component addresses."""
    if 0 in size:
        return 0, 0
    steps = [(n - 1) * s for n, s in zip(size, stride, strict=True)]
    return offset + sum(s for s in steps if s < 0), offset + 1 + sum(s for s in steps if s > 0)


def _jagged(checkpoint: Checkpoint, measures: Measures, tensor: Tensor) -> Fault | None:
    named = [(name, part) for name, part in tensor.parts if name.rpartition(".")[2].endswith("offsets")]
    values = checkpoint.nodes[tensor.parts[0][1]] if tensor.parts else None
    if not named or not isinstance(values, Tensor) or not values.shape:
        return None
    bounds: Bounds | None = measures.bounds.get(named[0][1])
    most = max(values.shape)
    if bounds is None or not bounds.rows or (bounds.first >= 0 and bounds.ascending and bounds.last <= most):
        return None
    order = "" if bounds.ascending else " and go down"
    message = f"its offsets go from {bounds.first} to {bounds.last}{order}, its values have {most} rows"
    return message, {"first": bounds.first, "last": bounds.last, "have": most}
