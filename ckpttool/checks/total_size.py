"""The size that the index records is not the size of the tensors.

What: `metadata.total_size` in the index and the bytes of all tensors together differ; tensors that share
memory may be counted once or each time. The finding gives both numbers, and says so where the recorded one is
the size of the files.

Why: Loaders use it to plan memory and to show progress, nothing more. But it is a free check of completeness,
and it does not hold here.

Cause: A writer that added up file sizes, weights converted to another type without a new index, or an index
from another revision.

Remedy: If the keys agree with the shards, write the index again. If they do not, fetch index and shards from
one revision.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK806", "total-size", "warning")
