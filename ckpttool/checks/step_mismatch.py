"""The optimizer has taken more steps than the run says it has made.

What: The largest `step` among the optimizer's states is larger than the step that the checkpoint
records. Both are
given. Fewer is normal: gradients are accumulated, a loss scaler skips, layers are unfrozen late.

Why: Weights, optimizer and counter are from different moments. Adam's bias correction, schedules that
go by the counter and
the position in the data no longer belong together.

Cause: A counter that was reset or reloaded from elsewhere, an optimizer from a later save, or files of
two saves in one
directory.

Remedy: Take all parts from one save. If the counter was reset on purpose, for finetuning, start the
optimizer afresh too.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import sections, value_of
from ckpttool.layout import Optimizer
from ckpttool.model import Damage
from ckpttool.rules import Context

COUNTERS = ("global_step", "iter_num", "num_updates", "global_steps")
"""Counters that mean optimizer steps or batches, never epochs; plain ``step`` may mean anything."""

SLACK = 2.0
"""Steps per counted step that several optimizers, or several steps on one batch, explain."""


@judges(__doc__, "CK506", "step-mismatch", "warning")
def step_mismatch(context: Context) -> Iterator[Damage]:
    """Optimizers that are far ahead of the run's own counter, one finding each."""
    counter = _counter(context)
    if counter is None or len(context.layout.optimizers) != 1:
        return
    key, counted = counter
    for optimizer in context.layout.optimizers:
        taken = _steps(context, optimizer)
        if taken is not None and taken > counted * SLACK + 1:
            message = f"the optimizer has taken {taken:g} steps, '{key}' says {counted:g}"
            yield Damage("step-mismatch", optimizer.key, message, {"optimizer": taken, "counter": counted})


def _counter(context: Context) -> tuple[str, float] | None:
    # Several counters of steps count different things; then none is believed.
    found = [(s.key, v) for s in sections(context, "counters") if s.path[-1] in COUNTERS
             and (v := value_of(context, s.index)) is not None]  # fmt: skip
    return found[0] if len({value for _, value in found}) == 1 else None


def _steps(context: Context, optimizer: Optimizer) -> float | None:
    steps = [v for slot in optimizer.slots for name, i in slot.state if name == "step"
             and (v := value_of(context, i)) is not None]  # fmt: skip
    return max(steps, default=None)
