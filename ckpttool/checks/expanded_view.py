"""A small storage is spread over a very large tensor.

What: A tensor repeats its elements along a dimension with stride 0 (`expand`), so that its shape stands for
more than 64 MiB and more than eight times the bytes that are stored. Small expanded tensors are not
reported.

Why: `torch.load` returns it at once, since nothing is copied. The first `clone`, `contiguous`, `to` or
optimizer step allocates the full size, and in-place writes fail because elements share memory. safetensors
refuses to save it.

Cause: A tensor saved right after `expand` or `broadcast_to`, such as a mask or a position table; or a file
made to exhaust the memory of whoever converts it.

Remedy: `ckpttool inspect --tensors` shows the shape and the stored bytes. Save the small tensor and expand
it after loading, or call `contiguous()` before saving if the full size is meant.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import Fault, faulty_tensors, listed, malformed, storage_bytes
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.rules import Context

LARGE = 64 << 20
"""Logical bytes up to which expansion is harmless."""

TIMES = 8
"""Logical bytes over stored bytes up to which expansion is ordinary broadcasting."""


@judges(__doc__, "CK306", "expanded-view", "warning")
def expanded_view(context: Context) -> Iterator[Damage]:
    """Tensors with a stride of 0 whose logical size is large and far above what is stored."""
    checkpoint = context.checkpoint
    yield from faulty_tensors(checkpoint, "expanded-view", lambda tensor: _fault(checkpoint, tensor))


def _fault(checkpoint: Checkpoint, tensor: Tensor) -> Fault | None:
    if 0 not in tensor.stride or (stored := storage_bytes(checkpoint, tensor)) is None or malformed(tensor):
        return None
    if not any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride, strict=True)):
        return None
    logical = tensor.nbytes
    if logical <= LARGE or logical <= TIMES * stored:
        return None
    message = f"shape {listed(tensor.shape)} stands for {logical} bytes, and {stored} are stored"
    return message, {"logical": logical, "stored": stored}
