"""One parameter's moments have different element types.

What: Two moments of one parameter that are always of one type (`exp_avg` and `exp_avg_sq`) are of two.

Why: torch casts an optimizer's state to the parameter's type when it loads, so one of the two has
already lost
precision that the other still has. An update divides one by the root of the other.

Cause: A conversion that cast some tensors and not others, such as a "make it smaller" script that went
by name.

Remedy: Take the state as it was saved first, or start the optimizer afresh.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing, slot_tensors
from ckpttool.model import Damage
from ckpttool.rules import Context

_PAIRED = frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta"})


@judges(__doc__, "CK503", "moment-dtype", "warning")
def moment_dtype(context: Context) -> Iterator[Damage]:
    """One finding for each optimizer with such slots."""
    for optimizer in context.layout.optimizers:
        mixed: list[str] = []
        kinds: set[str] = set()
        for slot in optimizer.slots:
            found = {t.dtype.name for name, _, t in slot_tensors(context, slot) if name in _PAIRED}
            if len(found) > 1:
                mixed.append(slot.name or slot.ident)
                kinds |= found
        if mixed:
            types = " and ".join(sorted(kinds))
            message = f"{len(mixed)} of {len(optimizer.slots)} parameters have moments of {types}: {listing(mixed)}"
            yield Damage(
                "moment-dtype", optimizer.key, message, {"slots": json_list(mixed), "types": json_list(sorted(kinds))}
            )
