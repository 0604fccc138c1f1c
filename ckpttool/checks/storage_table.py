"""The list of storages in a legacy file does not match its tree.

What: A legacy file ends its pickles with a list of storage keys, whose bytes follow in that order. Here the
list leaves out a storage that the tree uses, names one that the tree does not know, or names one twice.

Why: A storage that is left out is not refused: `torch.load` returns its tensors filled with whatever the
memory held, without an error. One too many stops it with `storage key … not found`.

Cause: A damaged or edited file, or a program that writes the legacy format and leaves storages out.

Remedy: Do not train from it. Fetch the file again or take the previous checkpoint, and save in the current
format, which names each storage's bytes.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK125", "storage-table", "error", axis="integrity")
