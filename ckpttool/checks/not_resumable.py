"""Training cannot continue from this checkpoint.

What: It has an optimizer or a counter, so it was meant for training, and lacks parts that a resume
needs. They are named.

Why: Without the optimizer's state moments start at zero and the loss jumps; without a counter nobody
knows where in
the schedule training was; some frameworks refuse to load at all.

Cause: Weights were saved on purpose (`save_weights_only`, `save_only_model`), the file was stripped
for publication, or the
script never saved the part.

Remedy: Use it as initial weights, or take a full checkpoint of the same run.
`docs/explanation/readiness.md` says which
framework saves what.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.model import Damage
from ckpttool.rules import Context

TRAINING = frozenset({"optimizer", "scheduler", "scaler", "counter"})
"""Parts that only a training checkpoint has; bare weights are nothing to complain about."""

BLOCKING = ("weights", "optimizer", "counter", "scheduler", "scaler", "message_hub")


@judges(__doc__, "CK701", "not-resumable", "info")
def not_resumable(context: Context) -> Iterator[Damage]:
    """One finding for a training checkpoint from which no resume is possible."""
    ready = context.layout.readiness
    if ready.level not in ("none", "weights-only") or TRAINING.isdisjoint(ready.has):
        return
    lacking = [part for part in ready.lacks if part in BLOCKING]
    message = f"a resume lacks: {', '.join(lacking)}"
    yield Damage("not-resumable", "", message, {"has": list(ready.has), "lacks": list(lacking)})
