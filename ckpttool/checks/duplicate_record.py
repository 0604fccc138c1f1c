"""Two records of the archive have the same name.

What: The directory lists a name twice, or twice up to upper and lower case, which torch does not tell
apart. The finding names both records.

Why: Which of the two is read depends on the reader. torch finds its way by a binary search, so its choice
changes with the number of records; Python's `zipfile` takes the last one with the exact name. One program
can so be shown harmless content and another one something else, and a storage may silently get the wrong
bytes.

Cause: A tool that appended a record to update it instead of replacing it, or a file made to get past a
scanner. `torch.save` never writes a name twice.

Remedy: Do not load the file. Get it again from a source that you trust, or take the previous checkpoint; if
your own tool edits archives, let it write a new one.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK105", "duplicate-record", "error", axis="hostile")
