"""A weight matrix holds one value throughout.

What: Every element of a weight with at least two dimensions and 256 elements has the same bits and is not
zero, while another such weight varies. The finding gives the value's magnitude. Normalization weights,
which begin at one, have one dimension and are left out.

Why: A layer whose weights are all equal computes one thing many times and cannot learn to differ. If it was
trained, its values are lost.

Cause: A layer filled with a constant and never trained, a test that saved a stand-in model, or memory that
was overwritten before the save.

Remedy: Look at the same tensor in the previous checkpoint: `ckpttool inspect OLD --stats --only KEY`.
If the constant is meant, ignore this rule in the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK405", "constant", "warning", content=True)
def constant(context: Context) -> Iterator[Damage]:
    """Constant matrices among weights that vary."""
    flat = [
        one
        for one in measured(context, lambda m: m.constant and not m.all_zero and not m.nan and not m.inf)
        if one.is_matrix_weight and "mask" not in one.key.lower()
    ]
    if not flat or not any(m.is_matrix_weight for m in measured(context, lambda m: not m.constant)):
        return
    found: list[tuple[str, Fault]] = []
    for one in flat:
        size = one.measure.abs_max
        message = f"all {one.measure.numel} elements are the same, {size:.6g} in magnitude"
        found.append((one.key, (message, {"numel": one.measure.numel, "abs_max": size})))
    yield from listed("constant", found)
