"""The weights are ZeRO-3 placeholders: names without content.

What: Most of the tensors under `….weight` hold no element at all. The numbers are given.

Why: `load_state_dict` fails with `copying a param with shape torch.Size([0])`, or, without `strict`,
loads nothing.
The weights are not in this file.

Cause: `model.state_dict()` saved under DeepSpeed ZeRO stage 3 without gathering: each rank holds its
slice elsewhere.

Remedy: Run `zero_to_fp32.py`, which DeepSpeed leaves in the checkpoint's directory, over the
`…_optim_states.pt`
files. For later saves set `stage3_gather_16bit_weights_on_model_save`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import sections, tensors_in
from ckpttool.model import Damage
from ckpttool.rules import Context

MOST_OF = 0.5


@judges(__doc__, "CK510", "zero3-placeholders", "error")
def zero3_placeholders(context: Context) -> Iterator[Damage]:
    """Sections of weights whose matrices are empty, one finding each."""
    for section in sections(context, "weights"):
        floats = {k: t for k, t in tensors_in(context, section).items() if t.dtype.kind == "float"}
        named = [t for key, t in floats.items() if key.endswith("weight")]
        empty = [t for t in named if t.shape == (0,)]
        if len(empty) >= 2 and len(empty) > MOST_OF * len(named):
            message = f"{len(empty)} of {len(named)} weights have no elements: their content lies in other files"
            yield Damage("zero3-placeholders", section.key, message, {"empty": len(empty), "weights": len(named)})
