"""Optimizer moments are kept in half precision although the parameters are not.

What: Second moments (`exp_avg_sq`, `square_avg`, …) are float16 or bfloat16 while their parameters are
float32, or they are
float16 at all.

Why: Squared gradients are tiny. In float16 everything below 6e-8 is zero, so updates divide by almost
nothing:
losses thousands of times larger after a resume have been seen. Loading does not bring the lost bits back.

Cause: A checkpoint made smaller by `.half()` over everything in it, optimizer included.

Remedy: Resume from a checkpoint that was not made smaller, or start the optimizer afresh. Make only
weights smaller.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import listing, parameter_of, slot_tensors
from ckpttool.layout import Slot
from ckpttool.model import Damage
from ckpttool.rules import Context

_SQUARED = frozenset({"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta", "variance"})


@judges(__doc__, "CK509", "half-precision-moments", "warning")
def half_precision_moments(context: Context) -> Iterator[Damage]:
    """One finding for each optimizer that keeps squares in half precision."""
    for optimizer in context.layout.optimizers:
        halved = [slot for slot in optimizer.slots if _halved(context, slot)]
        if halved:
            names = [slot.name or slot.ident for slot in halved]
            message = f"second moments of {len(halved)} of {len(optimizer.slots)} parameters are in half precision"
            facts = {"slots": len(halved), "all": len(optimizer.slots)}
            yield Damage("half-precision-moments", optimizer.key, f"{message}: {listing(names)}", facts)


def _halved(context: Context, slot: Slot) -> bool:
    found = {t.dtype.name for name, _, t in slot_tensors(context, slot) if name in _SQUARED}
    if "float16" in found:
        return True
    # Training wholly in bfloat16 is a choice; moments narrower than their parameter are an accident.
    parameter = parameter_of(context, slot)
    return "bfloat16" in found and parameter is not None and parameter.dtype.name == "float32"
