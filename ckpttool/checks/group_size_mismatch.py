"""An optimizer's groups list another number of parameters than its states or the model have.

What: The parameter groups list a number of parameters, and more of them are listed than the model has,
or an id is
listed twice. Both numbers are given.

Why: `load_state_dict` of an optimizer compares group sizes only and then matches by position. A state
that belongs to
another model is refused at best; where sizes happen to agree, every moment lands on a wrong parameter.

Cause: Weights and optimizer from two different runs in one file, layers that were removed from the
weights alone, or a
parameter that was handed to the optimizer twice.

Remedy: Take weights and optimizer from the same save. If the model changed on purpose, change both together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing, sections, tensors_in
from ckpttool.layout import Optimizer
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK501", "group-size-mismatch", "warning")
def group_size_mismatch(context: Context) -> Iterator[Damage]:
    """Ids listed twice, and an only optimizer that lists more parameters than there are weights at all."""
    for optimizer in context.layout.optimizers:
        counts = Counter(slot.ident for slot in optimizer.slots)
        twice = [ident for ident, count in counts.items() if count > 1]
        if twice:
            message = f"{len(twice)} parameters stand in the groups more than once: {listing(twice)}"
            yield Damage("group-size-mismatch", optimizer.key, message, {"repeated": json_list(twice)})
    if len(context.layout.optimizers) == 1:
        yield from _against_model(context, context.layout.optimizers[0])


def _against_model(context: Context, optimizer: Optimizer) -> Iterator[Damage]:
    # Fewer are normal: frozen layers. More cannot be, unless the model is not whole here (shards, adapters).
    weights = sections(context, "weights")
    have = sum(len(tensors_in(context, section)) for section in weights)
    listed = len({slot.ident for slot in optimizer.slots})
    if len(weights) == 1 and have and listed > have and context.checkpoint.format != "directory":
        message = f"the groups list {listed} parameters, and the weights hold {have} tensors"
        yield Damage("group-size-mismatch", optimizer.key, message, {"listed": listed, "tensors": have})
