"""A tensor's sizes, strides or offset describe no tensor.

What: A negative size, another number of sizes than of strides, a number that is not an integer, or sizes
whose product (elements) or reach (bytes) does not fit in 64 bits. A size of zero is fine beside a large
one.

Why: `torch.load` refuses it with `numel: integer multiplication overflow`, `unequal size length and stride
length` or a `TypeError`, and nothing of the file comes back. A reader that multiplies without looking ends
up with a small number, and with a buffer that is too small.

Cause: A changed byte in the pickle, or a file built by hand to reach such a reader. torch writes nothing of
the kind.

Remedy: Fetch the file again or take the previous checkpoint. If the file is the one its author published,
treat it as hostile and do not load it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import Fault, faulty_tensors, malformed
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context


@judges(__doc__, "CK304", "invalid-shape", "error", axis="integrity")
def invalid_shape(context: Context) -> Iterator[Damage]:
    """Tensors whose numbers are integers and still impossible; other numbers the reader reports itself."""
    yield from faulty_tensors(context.checkpoint, "invalid-shape", _fault)


def _fault(tensor: Tensor) -> Fault | None:
    why = malformed(tensor)
    return None if why is None else (why, {})
