"""Bytes stand before the beginning of the archive.

What: The archive starts some bytes into the file. The finding says how many bytes come before it and what
they look like.

Why: torch looks for the archive's signature at byte 0 alone. It takes the file for one of the legacy format
and fails with `Unsupported operand` or `Invalid magic number`; tools that search from the end, `zipfile`
among them, read it without complaint.

Cause: An HTTP header, a log line or a byte order mark written in front of the content; a self-extracting
archive; two files concatenated.

Remedy: Fetch the file again with a tool that writes the body alone. If your own code wrote it, write the
checkpoint to a file of its own.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK113", "leading-bytes", "error", axis="integrity")
