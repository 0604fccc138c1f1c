"""The index of the shards cannot be used.

What: The index is not JSON, has no `weight_map` from keys to file names, or holds a key twice. What could be
read of it was used.

Why: Without the index a loader does not know which files belong to the model, and stops or loads a part of
it.

Cause: An interrupted download or save, an edit by hand, or a page that was saved in the file's place.

Remedy: Fetch the index again; it is small. If it is lost, it can be rebuilt from the shards' headers, which
hold all keys.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK809", "index-malformed", "error", axis="integrity")
