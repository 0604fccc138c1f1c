"""A boolean tensor holds bytes that are neither 0 nor 1.

What: A tensor of type bool has elements whose byte is not 0 or 1. The finding counts them.

Why: What such an element means is undefined: the same tensor may be true in one operation and false in the
next, differ between CPU and GPU, and index wrongly.

Cause: Bytes of another type relabelled as bool, a writer that keeps masks as arbitrary bytes, or damage.

Remedy: Where the writer is known, convert with `tensor != 0` and save again. Otherwise take the file for
damaged and fetch it again.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK407", "bool-bytes", "warning", content=True)
def bool_bytes(context: Context) -> Iterator[Damage]:
    """Boolean tensors with other bytes."""
    found: list[tuple[str, Fault]] = []
    for one in measured(context, lambda m: m.odd > 0):
        m = one.measure
        message = f"{m.odd} of {m.numel} bytes are neither 0 nor 1"
        found.append((one.key, (message, {"odd": m.odd, "numel": m.numel})))
    yield from listed("bool-bytes", found)
