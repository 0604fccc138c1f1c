"""Tensor data does not start where torch would have placed it.

What: torch starts each storage on a multiple of 64 bytes of the file (or what `.storage_alignment` says);
here some start elsewhere. The finding counts them.

Why: Everything loads, also with `mmap=True`. Mapped tensors are then not aligned for vector instructions
and can be slower, and readers that compute offsets instead of reading them go wrong.

Cause: An archive packed again by an ordinary zip tool, or written by a library that does not pad.

Remedy: Nothing has to be done. Loading and saving with `torch.save` restores the alignment.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.errors import printable
from ckpttool.model import Checkpoint, Damage
from ckpttool.rules import Context

USUAL = 64
"""Bytes: torch's alignment where the archive records none."""


@judges(__doc__, "CK128", "misaligned", "info")
def misaligned(context: Context) -> Iterator[Damage]:
    """One finding for the whole archive, with the first storage that lies elsewhere."""
    checkpoint = context.checkpoint
    if checkpoint.format not in ("torch-zip", "torchscript"):
        return
    step = _alignment(checkpoint)
    stored = {extent.name for extent in checkpoint.extents if extent.method == "stored"}
    spans = [(s.record, s.span.start) for s in checkpoint.storages if s.span and s.record in stored]
    odd = [(name, start) for name, start in spans if start % step]
    if odd:
        name, start = odd[0]
        message = (
            f"{len(odd)} of {len(spans)} storages do not begin on a multiple of {step} bytes, the first at byte {start}"
        )
        yield Damage("misaligned", printable(name), message, {"storages": len(odd), "alignment": step, "offset": start})


def _alignment(checkpoint: Checkpoint) -> int:
    text = str(checkpoint.metadata.get("storage_alignment", ""))
    return int(text) if text.isdecimal() and len(text) < 8 and int(text) else USUAL
