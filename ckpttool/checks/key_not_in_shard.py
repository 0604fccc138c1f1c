"""The index names a tensor that its shard does not hold.

What: For one shard, keys that the index puts in it and that are not in its header. The finding counts and
lists them.

Why: Such a tensor cannot be loaded. Loaders report a missing key, or leave the parameter as it was
initialized without saying so.

Cause: An index and shards from two different saves or revisions, keys renamed in one of them only, or a shard
overwritten by another run.

Remedy: Fetch the index and the shards again from one revision. If the key merely moved to another shard,
rebuild the index from the shards' headers.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK803", "key-not-in-shard", "error", axis="integrity")
