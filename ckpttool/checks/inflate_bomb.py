"""A compressed record unpacks to far more than it takes in the file.

What: The record inflates to more than 200 times its compressed size, or past 256 MiB for a record that has
to be read whole. It was not inflated further. Both sizes are given.

Why: `torch.load` inflates it into memory before looking at it: a few kilobytes of file can take gigabytes.
Weights do not compress like that.

Cause: A file made to exhaust memory, or an archive of all-zero content that was packed again by a zip tool.

Remedy: Do not load the file unless you know who packed it. If it is your own, save the checkpoint again
with `torch.save`, which does not compress.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK127", "inflate-bomb", "error", axis="hostile")
