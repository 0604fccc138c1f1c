"""The optimizer keeps states for parameters that none of its groups lists.

What: Ids under `state` that stand in no group's `params`. They are given.

Why: torch carries such states along and never uses them: the parameter they belonged to continues
without its moments.

Cause: Parameters that were frozen or removed while their state stayed, or an optimizer state edited by hand.

Remedy: If the parameters are still trained, their group is missing: take an earlier save. Otherwise
the states
only take room and can go.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK514", "orphan-state", "warning")
def orphan_state(context: Context) -> Iterator[Damage]:
    """Optimizers with states that nothing lists, one finding each."""
    for optimizer in context.layout.optimizers:
        orphans = list(optimizer.orphans)
        # Without any slot the groups are kept in a form that is not torch's, and say nothing.
        if orphans and optimizer.slots:
            message = f"{len(orphans)} states belong to no group: {listing(orphans)}"
            yield Damage("orphan-state", optimizer.key, message, {"orphans": json_list(orphans)})
