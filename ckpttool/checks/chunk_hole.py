"""The chunks of a tensor leave a part of it out.

What: `.metadata` lists the boxes that make up the tensor, and together they hold fewer elements than its shape. The
finding says how many are in none.

Why: Loading fills the boxes that it knows. The rest stays at what the memory held before, without a word: random
weights, or those of the model's initialization.

Cause: A rank that did not take part in the save, a metadata file merged by hand, a bug in a custom planner or
in how uneven shards were counted.

Remedy: Save again with all ranks, or take the checkpoint before this one. The chunks that are there are sound.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK812", "chunk-hole", "error", axis="integrity")
