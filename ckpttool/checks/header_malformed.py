"""The file's header cannot be read as its format defines it.

What: In safetensors the header is JSON of a fixed shape, and this one is not: no JSON, no object, a field
missing, offsets that run backwards, metadata that are no strings. In torch files from before 1.6 it is the
magic number, the protocol or the system information. The finding names the place.

Why: The names, types and places of the tensors stand in the header alone. The safetensors library refuses the
whole file, and torch says `Invalid magic number; corrupt file?`.

Cause: Bits changed in storage or transfer, a text-mode transfer that rewrote line ends, or a header edited by
hand or written by another tool.

Remedy: Fetch the file again or take the checkpoint before it. Tensors whose own entry is sound are still
listed by `ckpttool inspect`, so that you see what could be saved.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK124", "header-malformed", "error", axis="integrity")
