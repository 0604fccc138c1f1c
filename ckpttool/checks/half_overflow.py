"""A weight is too large for half precision.

What: The greatest magnitude of a float32, float64 or bfloat16 weight is finite and above 65504, the
greatest number that float16 has. The finding gives that magnitude.

Why: Cast to float16, for serving or for mixed precision, the weight becomes infinite and the model's output
NaN. As stored it is fine.

Cause: Weights that grew without weight decay or normalization, a scale folded into a layer, or buffers that
count something large.

Remedy: Serve the model in bfloat16 or float32. Where float16 is needed, rescale the layer first.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage
from ckpttool.rules import Context

HALF_MAX = 65504.0
_WIDE = frozenset({"float32", "float64", "bfloat16", "complex64", "complex128"})


@judges(__doc__, "CK403", "half-overflow", "info", content=True)
def half_overflow(context: Context) -> Iterator[Damage]:
    """Weights whose greatest magnitude float16 does not have."""
    found: list[tuple[str, Fault]] = []
    for one in measured(context, lambda m: m.abs_max > HALF_MAX):
        if one.section == "weights" and one.tensor.dtype.name in _WIDE:
            greatest = one.measure.abs_max
            message = f"the greatest magnitude is {greatest:.6g}, float16 ends at {HALF_MAX:.0f}"
            found.append((one.key, (message, {"abs_max": greatest, "limit": HALF_MAX})))
    yield from listed("half-overflow", found)
