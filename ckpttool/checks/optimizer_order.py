"""The optimizer's states fit the parameters in another order than the one recorded.

What: The moments' shapes do not match the parameters that they are said to belong to, and match them
exactly when put
in another order.

Why: torch matches states by position and checks nothing. Where shapes differ, the first `step()`
fails; where they happen to
agree, two layers train with each other's moments and nobody notices.

Cause: Parameters handed over as a set, sorted names, layers defined in another order, or a migration that
renamed the weights and left the optimizer alone.

Remedy: Build the optimizer with the parameters in the order of the save. Built from
`named_parameters()` it records names,
and a change of order can be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing, parameter_of
from ckpttool.layout import Optimizer, Slot
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK513", "optimizer-order", "warning")
def optimizer_order(context: Context) -> Iterator[Damage]:
    """Optimizers that record names, and whose shapes are a permutation of what those names need."""
    for optimizer in context.layout.optimizers:
        # Without names there is nothing to contradict: groups may list parameters in any order they like.
        if optimizer.named in ("param_names", "fqn"):
            yield from _permuted(context, optimizer)


def _permuted(context: Context, optimizer: Optimizer) -> Iterator[Damage]:
    pairs = [(slot, p.shape) for slot in optimizer.slots if (p := parameter_of(context, slot)) and slot.shape]
    moved = [slot for slot, shape in pairs if slot.shape != shape]
    same = Counter(slot.shape for slot, _ in pairs) == Counter(shape for _, shape in pairs)
    if moved and same:
        names = [_name(slot) for slot in moved]
        message = f"states of {len(moved)} of {len(pairs)} parameters fit others of them by shape: {listing(names)}"
        yield Damage("optimizer-order", optimizer.key, message, {"slots": json_list(names)})


def _name(slot: Slot) -> str:
    return slot.name or slot.ident
