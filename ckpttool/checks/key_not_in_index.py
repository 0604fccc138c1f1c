"""A shard holds a tensor that the index does not list.

What: For one shard, keys in its header that no entry of the index leads to. The finding counts and lists
them.

Why: Loaders that go by the index never ask for them, while loaders that read every shard whole do load them.
The same files give two different models.

Cause: An index that was edited or written for a part of the model, or shards from another save.

Remedy: Rebuild the index from the shards' headers if the tensors belong to the model; otherwise fetch index
and shards from one revision.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK804", "key-not-in-index", "warning")
