"""The loss scaler's state is incomplete or its scale is not a usable number.

What: A scaler without `_growth_tracker` or `scale`, or with a scale that is zero, negative, infinite
or not a number.

Why: With a scale of zero every gradient is zero, with infinity every step is skipped. A missing
tracker makes the next
doubling come at another step than in the uninterrupted run.

Cause: A run that had diverged before it saved, so that the scale was halved until nothing was left, or
a state put together
by hand.

Remedy: Look for NaN and infinities in the weights: a scale of zero is seldom the only thing wrong.
Resume from an earlier
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import sections
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context
from ckpttool.tree import fields, number

_NEEDED = ("scale", "_growth_tracker")


@judges(__doc__, "CK507", "scaler-state", "warning")
def scaler_state(context: Context) -> Iterator[Damage]:
    """Scalers that torch's ``GradScaler`` would not have written. An empty one is a scaler switched off."""
    for section in sections(context, "scaler"):
        known = fields(context.checkpoint, section.index)
        # Other keys mean another scaler (apex, DeepSpeed), with rules of its own.
        if not {"growth_factor", "growth_interval"} <= known.keys() and "_growth_tracker" not in known:
            continue
        missing = [key for key in _NEEDED if key not in known]
        if missing:
            message = f"the scaler lacks {' and '.join(missing)}"
            yield Damage("scaler-state", section.key, message, {"missing": list(missing)})
        problem = _bad_scale(context, known.get("scale"))
        if problem is not None:
            yield Damage("scaler-state", section.key, f"the scale is {problem}", {"scale": problem})


def _bad_scale(context: Context, index: int | None) -> str | None:
    if index is None:
        return None
    if isinstance(context.checkpoint.nodes[index], Tensor):
        measured = None if context.measures is None else context.measures.tensors.get(index)
        if measured is None:
            return None
        return "not finite" if measured.nan or measured.inf else "zero" if measured.all_zero else None
    scale = number(context.checkpoint, index)
    if scale is None:
        return None
    if not math.isfinite(scale):
        return "not finite"
    return "zero" if scale == 0 else "negative" if scale < 0 else None
