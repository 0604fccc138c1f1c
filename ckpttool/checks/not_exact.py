"""Training can continue from this checkpoint, but not as if it had never stopped.

What: Parts without which a resumed run differs from an uninterrupted one. They are named, and where
the framework
never saves one of them that is said.

Why: Without generator states, dropout and augmentation draw other numbers and the first epoch after
the resume repeats
the order of the very first. Without the data's position, samples are seen twice or not at all. Without
the scaler's state,
float16 training skips steps until it has found its scale again.

Cause: Most frameworks do not save these parts, and most scripts follow them.

Remedy: If an exact resume matters, save `random.getstate()`, `numpy.random.get_state()`,
`torch.get_rng_state()` (and
CUDA's), the sampler's or loader's state, and the scaler beside model and optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK702", "not-exact", "info")
def not_exact(context: Context) -> Iterator[Damage]:
    """One finding for a checkpoint that is resumable and not exact."""
    ready = context.layout.readiness
    if ready.level != "resumable":
        return
    message = f"an exact resume lacks: {', '.join(ready.lacks)}"
    writer = context.layout.writer
    never = [] if writer is None else [p for p in writer.never if any(x.startswith(p) for x in ready.lacks)]
    if writer is not None and never:
        message += f"; {writer.framework} never saves {' and '.join(never)}"
    yield Damage("not-exact", "", message, {"lacks": list(ready.lacks), "never": list(never)})
