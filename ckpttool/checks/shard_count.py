"""The shards' names count more or fewer files than the index uses.

What: Names such as `model-00003-of-00008.safetensors` say how many shards there are, and the index names
another number, or the names do not agree among each other.

Why: Part of the model may be missing from the index altogether, which nothing else reveals: every key that is
listed can be found.

Cause: Files of two saves mixed in one index, a shard left out by a conversion, or files renamed by hand.

Remedy: Fetch index and shards again from one revision. If the files were renamed on purpose, give them names
that count right.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK807", "shard-count", "warning")
