"""A record of the archive is marked as encrypted.

What: The record's flags say that it is encrypted, or that it holds patch data. torch never writes either.

Why: torch refuses the file with `unsupported encryption` or `unsupported feature`, and Python's `zipfile`
asks for a password. Some scanners skip such a record, and with it the pickle that they should look at.

Cause: A flipped bit in the flags, an archive packed with a password, or an attempt to keep a scanner out.

Remedy: If somebody packed it with a password, unpack it with that tool and verify the result. Otherwise
fetch the file again or take the previous checkpoint.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK110", "encrypted-record", "error", axis="integrity")
