"""A storage is declared with values that cannot be right.

What: A storage's key, device or element count is of the wrong kind: a count below zero or past 2^62, or
text where a number belongs. The finding shows the values.

Why: `torch.load` stops with a `TypeError` about `get_storage_from_record`, or goes on with a nonsensical
size where `mmap=True` is given. The tensors that use the storage cannot be read.

Cause: A damaged byte in the pickle, or a pickle assembled by hand.

Remedy: Fetch the file again or take the previous checkpoint. `ckpttool inspect` shows the tensors that do
not depend on this storage.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK311", "storage-declaration", "error", axis="integrity")
