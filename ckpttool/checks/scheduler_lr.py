"""The schedule and the optimizer disagree about the learning rate.

What: The schedule's `_last_lr` is not the `lr` of the optimizer's groups. Both are given.

Why: The two are from different moments or different runs. After a resume the rate jumps at the next
step of the
schedule, and the loss with it.

Cause: A schedule that was saved before its `step()` and an optimizer saved after it, a rate changed by
hand, or a schedule
built after the optimizer had been loaded, which resets the rate.

Remedy: Find out which of the two is right, from the log of the run. Save both at one place in the
loop; build the schedule
first, then load the optimizer, then the schedule.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import close, group_numbers, numbers, paired
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK504", "scheduler-lr", "warning")
def scheduler_lr(context: Context) -> Iterator[Damage]:
    """Schedules whose last rates differ from their optimizer's groups, one finding each."""
    for key, known, optimizer in paired(context):
        last = numbers(context, known.get("_last_lr"))
        rates = group_numbers(context, optimizer, "lr")
        if last is None or rates is None or len(last) != len(rates):
            continue
        wrong = [i for i, (a, b) in enumerate(zip(last, rates, strict=True)) if not close(a, b)]
        if wrong:
            i = wrong[0]
            message = f"_last_lr is {last[i]:g}, the lr of group {i} of '{optimizer.key}' is {rates[i]:g}"
            yield Damage("scheduler-lr", key, message, {"group": i, "scheduler": last[i], "optimizer": rates[i]})
