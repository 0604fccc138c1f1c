"""A tensor without bytes has a size that no real tensor has.

What: A meta tensor (shape and type, no content) with 2^40 elements or more. The largest parameters of
published models have fewer than 2^36.

Why: Nothing is allocated on loading: `torch.load` returns it at once. `to_empty`, `empty_like` or anything
else that gives it memory then asks for terabytes and ends the process.

Cause: A shape computed wrongly while a model was built on the meta device, or a file made to exhaust memory
later.

Remedy: Look at the shape with `ckpttool inspect --tensors`. If it is a mistake, correct the configuration
that the model was built from and save again; if the file came from elsewhere, do not materialize it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import Fault, faulty_tensors, listed, malformed
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context

HUGE = 1 << 40
"""Elements. A trillion in one tensor is beyond every published model, flattened shards included."""


@judges(__doc__, "CK313", "huge-meta", "warning")
def huge_meta(context: Context) -> Iterator[Damage]:
    """Meta tensors that would need terabytes once they are given memory."""
    yield from faulty_tensors(context.checkpoint, "huge-meta", _fault)


def _fault(tensor: Tensor) -> Fault | None:
    if tensor.layout != "meta" or malformed(tensor) or tensor.numel < HUGE:
        return None
    message = f"shape {listed(tensor.shape)} has {tensor.numel} elements, {tensor.nbytes} bytes once allocated"
    return message, {"numel": tensor.numel, "nbytes": tensor.nbytes}
