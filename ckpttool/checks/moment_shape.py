"""An optimizer's moment has another shape than its parameter.

What: A state tensor that is always shaped like its parameter (`exp_avg`, `momentum_buffer`, …) has
another shape, or
two of one parameter's moments disagree. Both shapes are given.

Why: `load_state_dict` accepts it without a word. The run fails at the first `step()`, or broadcasts
and trains with
moments that belong to something else.

Cause: Parameters in another order than when the state was saved, layers resized in the weights but not in the
optimizer, or states from another model.

Remedy: Take the optimizer from the same save as the weights, or change both together. A fresh
optimizer is better than
one with foreign moments.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import MOST, capped
from ckpttool.checks._training import parameter_of, shape_text, slot_tensors
from ckpttool.layout import Optimizer, Slot
from ckpttool.model import Damage, Facts
from ckpttool.rules import Context

SHAPED = frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta", "grad_avg"})
"""Moments that one parameter keeps in one shape, whatever the optimizer."""


@judges(__doc__, "CK502", "moment-shape", "error")
def moment_shape(context: Context) -> Iterator[Damage]:
    """Slots whose moments disagree with each other or, where the file names it, with their parameter."""
    for optimizer in context.layout.optimizers:
        faults = [fault for slot in optimizer.slots if (fault := _fault(context, optimizer, slot)) is not None]
        yield from capped("moment-shape", iter(faults[:MOST]), len(faults), "slots")


def _fault(context: Context, optimizer: Optimizer, slot: Slot) -> tuple[str, tuple[str, Facts]] | None:
    if slot.shape is None:
        return None
    where = f"{optimizer.key}.state.{slot.ident}".lstrip(".")
    for name, _, tensor in slot_tensors(context, slot):
        if name in SHAPED and tensor.shape != slot.shape:
            others = f"{name} is {shape_text(tensor.shape)}, the other moments are {shape_text(slot.shape)}"
            return where, (others, {"have": list(tensor.shape), "needs": list(slot.shape)})
    parameter = parameter_of(context, slot)
    if parameter is None or parameter.shape == slot.shape or _sharded(optimizer, slot, parameter.numel):
        return None
    text = f"moments are {shape_text(slot.shape)}, parameter '{slot.name}' is {shape_text(parameter.shape)}"
    return where, (text, {"have": list(slot.shape), "needs": list(parameter.shape)})


def _sharded(optimizer: Optimizer, slot: Slot, numel: int) -> bool:
    """FSDP and ZeRO key flat pieces by name, and a placeholder says nothing about its moments."""
    flat = optimizer.named == "fqn" and slot.shape is not None and len(slot.shape) == 1
    return flat or numel <= 1
