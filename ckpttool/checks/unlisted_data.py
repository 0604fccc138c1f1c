"""Data files of a distributed checkpoint hold bytes that its metadata does not list.

What: A `.distcp` file that no entry of `.metadata` refers to, or a range of one that belongs to no entry.

Why: Nothing loads them: they cost space, and they say that more ranks or another save wrote here. If the other files
were overwritten too, the checkpoint may be a mixture.

Cause: An older save of more ranks into the same folder, a save of one rank apart, or a save that was killed before it
wrote its metadata.

Remedy: Save every step into a folder of its own. Move the files away once you know that nobody needs them.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK816", "unlisted-data", "warning")
