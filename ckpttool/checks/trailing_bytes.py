"""Bytes follow the end of the checkpoint.

What: The file goes on after the point where its format ends. The finding says from which byte and for how
many bytes.

Why: torch ignores them up to about 64 KiB behind an archive and behind a legacy file; more than that behind
an archive gives `failed finding central directory`. safetensors refuses a single one. If the appended bytes
are an archive of their own, readers that search from the end see that one and not the first.

Cause: A file concatenated with another, a download tool that appended an error page, padding to a block
size, or a second save that was shorter than what it overwrote.

Remedy: Compare the size with the source's and fetch the file again if it differs. If training wrote it,
take the previous checkpoint or save once more to a new path.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK112", "trailing-bytes", "warning")
