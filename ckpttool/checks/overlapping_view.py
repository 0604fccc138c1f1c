"""Different elements of one tensor lie on the same bytes.

What: The strides make two indices of a tensor reach one element of the storage, with no stride of 0 in play
(`as_strided` windows, for example). Overlap that follows from any two dimensions, or from more elements
than the tensor spans, is found.

Why: `torch.load` returns the tensor. Writing to one element then changes others, so an in-place update or
`load_state_dict` into it gives results that depend on order. safetensors refuses to save it.

Cause: A sliding-window view (`as_strided`) that was saved without a copy, or a changed stride.

Remedy: If the window is meant, call `contiguous()` before saving, or save the source and take the window
after loading. If the code makes no such view, compare with the previous checkpoint through `ckpttool
inspect --tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

from ckpttool.checks import judges
from ckpttool.checks._places import Fault, faulty_tensors, listed, malformed
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context


@judges(__doc__, "CK307", "overlapping-view", "warning")
def overlapping_view(context: Context) -> Iterator[Damage]:
    """Tensors that surely overlap themselves; never one that does not."""
    yield from faulty_tensors(context.checkpoint, "overlapping-view", _fault)


def _fault(tensor: Tensor) -> Fault | None:
    if tensor.storage is None or tensor.contiguous or malformed(tensor) or not _overlaps(tensor):
        return None
    return f"shape {listed(tensor.shape)} with stride {listed(tensor.stride)} reaches elements twice", {}


def _overlaps(tensor: Tensor) -> bool:
    pairs = zip(tensor.shape, tensor.stride, strict=True)
    # At most 62 dimensions are longer than 1, or the element count would not fit in 64 bits.
    dims = sorted((abs(step), size) for size, step in pairs if size > 1 and step != 0)
    if 0 in tensor.shape or _nested(dims):
        return False
    numel = math.prod(size for _, size in dims)
    span = 1 + sum((size - 1) * step for step, size in dims)
    return numel > span or any(_meet(one, other) for one, other in combinations(dims, 2))


def _nested(dims: list[tuple[int, int]]) -> bool:
    """Whether each stride steps over everything that the smaller ones reach: no overlap then."""
    reach = 0
    for step, size in dims:
        if step <= reach:
            return False
        reach += (size - 1) * step
    return True


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether some steps along one dimension equal some steps along the other."""
    common = math.gcd(one[0], other[0])
    return other[0] // common < one[1] and one[0] // common < other[1]
