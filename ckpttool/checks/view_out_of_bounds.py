"""A tensor addresses elements outside of its storage.

What: Offset, shape and stride lead past the storage's last byte or before its first one. The finding gives
the bytes that the tensor would need and the bytes that the storage is declared to have.

Why: `torch.load` refuses such a tensor (`Trying to resize storage that is not resizable`, `invalid storage
offset`, `Storage size calculation overflowed`), and with it the whole file. A reader that does not check
returns bytes that belong to something else.

Cause: A changed bit in the pickle's sizes or strides, a storage key that points at another storage, or a
file that was built or edited by hand.

Remedy: Run `ckpttool inspect` to see which tensors are whole. Fetch the file again or take the previous
checkpoint; the missing elements are not in this file.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import Fault, faulty_tensors, listed, malformed, storage_bytes
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.rules import Context


@judges(__doc__, "CK303", "view-out-of-bounds", "error", axis="integrity")
def view_out_of_bounds(context: Context) -> Iterator[Damage]:
    """Tensors that need bytes which their storage does not have. An empty tensor needs none."""
    checkpoint = context.checkpoint
    yield from faulty_tensors(checkpoint, "view-out-of-bounds", lambda tensor: _fault(checkpoint, tensor))


def _fault(checkpoint: Checkpoint, tensor: Tensor) -> Fault | None:
    have = storage_bytes(checkpoint, tensor)
    if have is None or malformed(tensor):
        return None
    if tensor.offset < 0:
        return f"offset {tensor.offset} lies before the storage's first element", {"offset": tensor.offset}
    if 0 in tensor.shape:
        return None
    if any(step < 0 < size - 1 for size, step in zip(tensor.shape, tensor.stride, strict=True)):
        return f"stride {listed(tensor.stride)} goes backwards, which torch has no tensors for", {}
    needs = tensor.dtype.nbytes(tensor.offset + tensor.extent)
    if needs <= have:
        return None
    message = (
        f"shape {listed(tensor.shape)} with stride {listed(tensor.stride)} at offset {tensor.offset} "
        f"needs {needs} bytes of {tensor.dtype.name}, and its storage has {have}"
    )
    return message, {"needs": needs, "have": have, "offset": tensor.offset}
