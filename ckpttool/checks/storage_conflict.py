"""One storage is declared twice, in two different ways.

What: Two tensors name the same storage key with different element types or counts. The finding gives both
declarations in bytes.

Why: torch takes the first declaration and ignores the second without a word. If the second is larger, its
tensors do not fit (`Trying to resize storage that is not resizable`); if only the type differs, bytes are
read as something they are not.

Cause: A changed storage key or count in the pickle, or a pickle assembled by hand. `torch.save` refuses to
write one storage with two types.

Remedy: Fetch the file again or take the previous checkpoint. `ckpttool inspect --tensors` shows which
tensors share the storage.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK305", "storage-conflict", "error", axis="integrity")
