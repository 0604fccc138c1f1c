"""A few bytes stand for an enormous tree.

What: Containers are shared so that the tree unfolds to more than 20 million leaves although it has few
nodes: a tuple that holds another one twice, forty levels deep, has 2^40. Each shared part was judged, and
not each path to it.

Why: `torch.load` itself may return, or may hang where a tuple is compared or hashed. Whatever walks the
result, such as printing, moving to a device or `tree_map`, never ends.

Cause: A file built to stop its reader. Sharing in real checkpoints (tied weights, repeated settings) stays
far below.

Remedy: Do not load the file. Get it again from its author, or take the previous checkpoint.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK214", "too-many-leaves", "warning")
