"""Which bytes of a storage its tensors address, and which of these ranges belong together."""

from __future__ import annotations

from collections.abc import Iterable
from math import lcm

from ckpttool.frozen import dataclass
from ckpttool.model import Tensor


@dataclass(frozen=True, slots=True)
class Range:
    """A run of a storage's bytes, half open, and the nodes of the tensors that look into it."""

    start: int
    stop: int
    nodes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


def ranges(views: Iterable[tuple[int, Tensor]]) -> tuple[Range, ...]:
    """The ranges that views address, from the first byte to the last of each; those that overlap are one.

    A range begins where every type of element in it may begin. Views without elements belong to the first range.
    """
    found: list[Range] = []
    empty: list[int] = []
    spans = []
    for index, tensor in views:
        if not tensor.numel:
            empty.append(index)
            continue
        width = tensor.dtype.itemsize
        start = tensor.offset * width
        spans.append((start, start + tensor.extent * width, index, width))
    widths: list[int] = []
    for start, stop, index, width in sorted(spans):
        if found and start < found[-1].stop:
            last = found[-1]
            widths[-1] = lcm(widths[-1], width)
            found[-1] = Range(last.start, max(last.stop, stop), (*last.nodes, index))
        else:
            found.append(Range(start, stop, (index,)))
            widths.append(width)
    found = [Range(r.start // w * w, r.stop, r.nodes) for r, w in zip(found, widths, strict=True)]
    if empty:
        first = found[0] if found else Range(0, 0, ())
        found[:1] = [Range(first.start, first.stop, (*first.nodes, *empty))]
    return tuple(found)


def is_one_view(tensors: Iterable[Tensor]) -> bool:
    """Whether tensors with elements are all the same view, one that skips elements and repeats none."""
    geometries = {(t.dtype, t.shape, t.stride, t.offset) for t in tensors}
    first = next(iter(tensors), None)
    if len(geometries) != 1 or first is None or not first.numel:
        return False
    # Elements that stand twice would have to be told from those that do not.
    steps = sorted((step, size) for step, size in zip(first.stride, first.shape, strict=True) if size > 1)
    reach = 1
    for step, size in steps:
        if step < reach:
            return False
        reach = step * (size - 1) + reach
    return first.numel < first.extent
