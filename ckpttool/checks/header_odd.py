"""The header is readable and not quite what the format asks for.

What: Tensors that do not begin on a multiple of eight bytes, fields that the format does not define, metadata
that are null, or padding of other characters than spaces.

Why: Today's safetensors library takes such a file, and other readers or later versions may refuse it.
Unaligned tensors are slower to map into memory.

Cause: A writer other than the safetensors library, an early version of it, or a header edited by hand.

Remedy: Load the file and save it again with the safetensors library. Nothing is lost by it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK132", "header-odd", "warning")
