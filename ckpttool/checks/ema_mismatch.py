"""The averaged weights are not the twin of the weights.

What: Averaged weights that share some keys with the weights lack others, have another shape for one,
or lie in the very
same storages, so that they average nothing.

Why: Evaluation and export use the average. If it lacks a layer, that layer stays at its initial values
when loaded without
`strict`; if it shares its memory with the weights, it is a second name for them and the average is lost.

Cause: An average made before layers were added, weights saved after a surgery that left the average alone, or
`ema = model.state_dict()` without a copy.

Remedy: Rebuild the average from the weights. Copy with `{k: v.clone() for k, v in
model.state_dict().items()}`, or let
`torch.optim.swa_utils.AveragedModel` do it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import bare, json_list, listing, sections, shape_text, tensors_in
from ckpttool.layout import Section
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context

ALIKE = 0.5
"""Part of the average's keys that must be keys of the weights for the two to be twins at all."""


@judges(__doc__, "CK508", "ema-mismatch", "warning")
def ema_mismatch(context: Context) -> Iterator[Damage]:
    """Averages that do not fit the weights they should follow, one finding each."""
    models = [_floats(tensors_in(context, s)) for s in sections(context, "weights")]
    for section in sections(context, "ema"):
        average = _floats(_inner(tensors_in(context, section)))
        twins = [m for m in models if average and len(average.keys() & m.keys()) >= ALIKE * len(average)]
        if len(twins) == 1:
            yield from _compare(section, twins[0], average)


def _inner(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An average kept one level down (``{"decay": …, "state_dict": {…}}``) under the model's own keys."""
    for prefix in ("state_dict.", "shadow.", "model.", "ema_model.", "averaged_model."):
        below = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
        if below and len(below) == sum(1 for t in tensors.values() if t.shape):
            return below
        if len(below) > ALIKE * len(tensors) and prefix == "state_dict.":
            return below
    return tensors


def _floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {bare(key): t for key, t in tensors.items() if t.dtype.kind == "float" and t.shape}


def _compare(section: Section, weights: dict[str, Tensor], average: dict[str, Tensor]) -> Iterator[Damage]:
    both = [key for key in average if key in weights]
    reshaped = [key for key in both if average[key].shape != weights[key].shape]
    if reshaped:
        key = reshaped[0]
        shapes = f"{shape_text(average[key].shape)} here, {shape_text(weights[key].shape)} in the weights"
        message = f"{len(reshaped)} of {len(average)} averaged tensors have another shape: '{key}' is {shapes}"
        yield Damage("ema-mismatch", section.key, message, {"keys": json_list(reshaped)})
    # An average of the parameters alone, without buffers, is common and fine.
    missing = [key for key in weights if key not in average and not key.rpartition(".")[2].startswith("running_")]
    stray = [key for key in average if key not in weights]
    if missing and stray:
        message = f"{len(missing)} of {len(weights)} tensors have no average: {listing(missing)}"
        yield Damage("ema-mismatch", section.key, message, {"missing": json_list(missing), "stray": json_list(stray)})
    shared = [k for k in both if average[k].storage is not None and average[k].storage == weights[k].storage]
    if both and len(shared) == len(both):
        message = f"all {len(both)} averaged tensors lie in the storages of the weights: this is no average"
        yield Damage("ema-mismatch", section.key, message, {"shared": len(shared)})
