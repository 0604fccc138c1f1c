"""A shard that the index names is not there.

What: The index puts tensors into a file that does not lie beside it, or that is a link which leads nowhere.
The finding says how many tensors that concerns.

Why: Most loaders stop with `FileNotFoundError`. Some go on with the tensors that they found and leave the
others at random values.

Cause: A download that was stopped, a copy that left a file out, a cache whose file was deleted, or a disk
that was full when the last shard was written.

Remedy: Fetch the missing file and put it beside the others. The shards that are there were checked and need
not be fetched again.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK801", "missing-shard", "error", axis="integrity")
