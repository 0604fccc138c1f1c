"""The note behind a record disagrees with the archive's directory.

What: torch writes each record's checksum and sizes behind its bytes (the data descriptor) and again in the
directory. Here the descriptor is missing, or its signature, CRC-32 or sizes differ from the directory's.

Why: No loader looks at it: `torch.load` and Python's `zipfile` read the directory alone and report nothing.
That the two copies differ shows that bytes of the file changed after it was written.

Cause: A changed bit or page on disk or in transfer, or an edit of the directory that forgot the descriptor.

Remedy: See whether `ckpttool verify` also reports `crc-mismatch` for the record: if it does not, the
content matches the directory's copy and only the note is damaged. Fetch the file again or take the previous
checkpoint all the same, since the medium is not to be trusted.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK108", "descriptor-mismatch", "error", axis="integrity")
