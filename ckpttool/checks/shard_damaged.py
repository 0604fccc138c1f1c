"""A shard is no checkpoint file, or nothing of its tree can be read.

What: The file is there under the right name, and its content is something else, or so damaged that not one
tensor can be found. The finding says what it is. Damage that leaves tensors readable is reported under its
own rule.

Why: None of the tensors that the index puts there can be loaded.

Cause: A Git LFS pointer that was never pulled, a web page saved by a failed download, a file that was created
and never written, or a copy that broke off early.

Remedy: Fetch this shard again; the others need not be. For a pointer, pull the file with Git LFS.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK810", "shard-damaged", "error", axis="integrity")
