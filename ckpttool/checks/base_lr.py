"""The schedule's base rates are not the rates that the optimizer's groups started from.

What: `base_lrs` of the schedule and `initial_lr` of the groups, which a schedule sets to the same
number when it is
built, differ.

Why: The schedule multiplies its base rates. With those of another run, or in another order of groups,
every rate
from here on is wrong by a constant factor.

Cause: A schedule and an optimizer from different runs, or groups that were added, dropped or reordered
after the
schedule was built.

Remedy: Take both from one save. If the base rate was changed on purpose, change it in both.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import close, group_numbers, numbers, paired
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK505", "base-lr", "warning")
def base_lr(context: Context) -> Iterator[Damage]:
    """Schedules whose base rates differ from their optimizer's, one finding each."""
    for key, known, optimizer in paired(context):
        base = numbers(context, known.get("base_lrs"))
        initial = group_numbers(context, optimizer, "initial_lr")
        if base is None or initial is None or _drives_many(known):
            continue
        if len(base) != len(initial):
            message = f"{len(base)} base rates for {len(initial)} groups of '{optimizer.key}'"
            yield Damage("base-lr", key, message, {"base": len(base), "groups": len(initial)})
            continue
        wrong = [i for i, (a, b) in enumerate(zip(base, initial, strict=True)) if not close(a, b)]
        if wrong:
            i = wrong[0]
            message = f"base_lrs says {base[i]:g}, initial_lr of group {i} of '{optimizer.key}' is {initial[i]:g}"
            yield Damage("base-lr", key, message, {"group": i, "scheduler": base[i], "optimizer": initial[i]})


def _drives_many(known: dict[str, int]) -> bool:
    # One-cycle and cyclic schedules rewrite initial_lr and keep bases of their own.
    return "_schedule_phases" in known or "max_lrs" in known
