"""A tensor holds values that are not numbers.

What: Elements of a floating-point tensor are NaN. The finding names the tensor, how many of its elements
are NaN, and the row-major index of the first one.

Why: NaN spreads: one such weight makes every output that depends on it NaN, and one such optimizer moment
makes its weight NaN at the next step. Loading reports nothing.

Cause: Training that diverged before the save (a learning rate too high, an overflow in half precision, a
division by zero in the loss), or bytes that are damaged or read as another element type.

Remedy: Do not resume from this file. Take the newest earlier checkpoint on which `ckpttool verify` reports
no NaN, and look at the loss between the two. If `verify` also reports `crc-mismatch`, the bytes are
damaged.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK401", "nan", "error", content=True)
def nan(context: Context) -> Iterator[Damage]:
    """Tensors with NaN."""
    found: list[tuple[str, Fault]] = []
    for one in measured(context, lambda m: m.nan > 0):
        m = one.measure
        first = m.first_bad if not m.inf else None
        place = "" if first is None else f", the first at index {first}"
        message = f"{m.nan} of {m.numel} elements are NaN{place}"
        found.append((one.key, (message, {"nan": m.nan, "numel": m.numel, "first": first})))
    yield from listed("nan", found)
