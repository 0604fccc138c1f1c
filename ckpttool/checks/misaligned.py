"""Tensor data does not start where torch would have placed it.

What: torch starts each storage on a multiple of 64 bytes of the file (or what `.storage_alignment` says);
here some start elsewhere. The finding counts them.

Why: Everything loads, also with `mmap=True`. Mapped tensors are then not aligned for vector instructions
and can be slower, and readers that compute offsets instead of reading them go wrong.

Cause: An archive packed again by an ordinary zip tool, or written by a library that does not pad.

Remedy: Nothing has to be done. Loading and saving with `torch.save` restores the alignment.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK128", "misaligned", "info")
