"""State that must live on the CPU was saved from a GPU.

What: The state of a CPU generator, or Adam's `step` of an optimizer that is not `capturable` or
`fused`, carries a `cuda`
location.

Why: `torch.set_rng_state` refuses it (`RNG state must be a torch.ByteTensor`), and Adam stops with `If
capturable=False,
state_steps should not be CUDA tensors`.

Cause: The checkpoint had been loaded with `map_location='cuda'`, which moves everything, and was saved again.

Remedy: Load with `map_location='cpu'` and let model and optimizer move what is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import group_fields
from ckpttool.layout import Optimizer
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context
from ckpttool.tree import plain


@judges(__doc__, "CK605", "device-bound-state", "warning")
def device_bound_state(context: Context) -> Iterator[Damage]:
    """One finding for generators, one for each optimizer."""
    placed = [kind for kind, index in context.layout.rng if kind == "torch" and _on_gpu(context, index)]
    if placed:
        message = f"{len(placed)} states of the CPU generator were saved from a GPU"
        yield Damage("device-bound-state", "rng", message, {"states": len(placed)})
    for optimizer in context.layout.optimizers:
        if _wants_gpu(context, optimizer):
            continue
        steps = [i for slot in optimizer.slots for name, i in slot.state if name == "step" and _on_gpu(context, i)]
        if steps:
            message = f"{len(steps)} step counters were saved from a GPU, and no group is capturable or fused"
            yield Damage("device-bound-state", optimizer.key, message, {"steps": len(steps)})


def _on_gpu(context: Context, index: int) -> bool:
    node = context.checkpoint.nodes[index]
    if not isinstance(node, Tensor) or node.storage is None:
        return False
    return context.checkpoint.storages[node.storage].device.startswith("cuda")


def _wants_gpu(context: Context, optimizer: Optimizer) -> bool:
    # Only an optimizer that says it is neither keeps its steps on the CPU; others have rules of their own.
    groups = group_fields(context, optimizer)
    if not all("capturable" in group for group in groups):
        return True
    flags = [plain(context.checkpoint, group.get(key)) for group in groups for key in ("capturable", "fused")]
    return any(flag is True for flag in flags)
