"""A shard lies here that the index does not mention.

What: A file with the name of a shard of this set is in the folder, and no key of the index leads to it.

Why: Loaders ignore it, so its tensors are not loaded; if they belong to this model, the index is incomplete.
If they do not, the file only takes space, and tools that load every file of a folder mix two models.

Cause: A save with another number of shards into the same folder, or an index taken from another revision.

Remedy: Compare the file's keys with the index (`ckpttool inspect FILE`). Delete what is left of an older
save; if it belongs here, fetch the index again.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK802", "unreferenced-shard", "warning")
