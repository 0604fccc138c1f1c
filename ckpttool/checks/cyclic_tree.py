"""A container holds itself.

What: A list, dict or object of the tree contains itself, directly or through others. The walk stops where
the cycle closes.

Why: `torch.load` returns it. Code that walks the checkpoint (moving it to a device, comparing, printing,
converting) can go on until it hits the recursion limit or for ever.

Cause: An object with a link to its owner that was saved whole (a trainer, a callback), or a file made by
hand.

Remedy: See with `ckpttool inspect --tree` which part it is, and save plain data instead of that object.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK212", "cyclic-tree", "warning")
