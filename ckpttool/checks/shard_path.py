"""The index points to a file outside of its folder.

What: A file name in the index is absolute, climbs with `..` or holds a path separator. verify does not open
what it points to.

Why: A loader that joins the name to the folder opens any file that the user may read, and treats it as
weights; for `.bin` shards that means unpickling it.

Cause: A file made to reach other files. Some tools also write absolute paths by mistake.

Remedy: Do not load it before the index has been corrected. If it is your own, write the plain file names into
it; otherwise take it from a source that you trust.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK808", "shard-path", "error", axis="safety")
