"""A weight matrix is zero throughout.

What: Every element of a weight with at least two dimensions and 256 elements is zero, while another such
weight of the checkpoint is not. Biases, moments, normalization and layers that begin at zero by design
(adapters' second matrices, gates, zero convolutions, output projections of diffusion models) are left out.

Why: Such a layer passes nothing on. If it was trained, its values are lost.

Cause: A layer that was created and never initialized or loaded, a pruned layer, a save from a process that
did not hold this shard, or a part of the file that was never written.

Remedy: Look at the same tensor in the previous checkpoint: `ckpttool inspect OLD --stats --only KEY`.
If the layer is meant to be zero, ignore this rule in the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import Measured, listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage
from ckpttool.rules import Context

_BY_DESIGN = ("lora_b", "lora_up", "zero_", "gate", "adaln", "proj_out", "out_layers", "to_out", "hada_w", "mask")


@judges(__doc__, "CK404", "all-zero", "warning", content=True)
def all_zero(context: Context) -> Iterator[Damage]:
    """Zero matrices among weights that are not."""
    zero = [m for m in measured(context, lambda m: m.all_zero) if m.is_matrix_weight and not _by_design(m)]
    if not zero or not any(m.is_matrix_weight for m in measured(context, lambda m: not m.constant)):
        return
    found: list[tuple[str, Fault]] = []
    for one in zero:
        message = f"all {one.measure.numel} elements are zero, those of other weights are not"
        found.append((one.key, (message, {"numel": one.measure.numel})))
    yield from listed("all-zero", found)


def _by_design(one: Measured) -> bool:
    key = one.key.lower()
    return any(word in key for word in _BY_DESIGN)
