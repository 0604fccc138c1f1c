"""The same tensor stands in two shards.

What: Keys that more than one shard holds. The finding names both shards and the keys.

Why: Which of the two is loaded depends on the loader and on the order in which it reads the files. If their
contents differ, results differ from one program to the next.

Cause: Shards of two saves in one folder, or a tool that split a model and repeated tied weights.

Remedy: Compare the two (`ckpttool inspect --stats`), keep the right one and save the model anew. verify shows the one
that the index names.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK805", "duplicate-shard-key", "warning")
