"""The archive holds a record that is not part of the checkpoint.

What: A record is neither one that torch writes nor a storage that the tree refers to. The finding names it
and gives its size.

Why: `torch.load` ignores it. It takes room, it can be a storage whose tensors were lost from the tree, and
between two storages it makes torch read wrong bytes when `calculate_storage_offsets` is set together with
`mmap=True`.

Cause: A file added with a zip tool (notes, a configuration, `__MACOSX`), or a record left behind by an
edit. What looks like a pickle or code is reported as `hidden-pickle`.

Remedy: Look at the names with `ckpttool inspect`. If you do not need the record, load and save the
checkpoint again and keep such files beside it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK130", "foreign-record", "warning")
