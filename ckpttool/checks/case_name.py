"""A record's name differs from torch's in upper and lower case.

What: The archive has, for example, `DATA.PKL` where torch writes `data.pkl`.

Why: torch ignores case when it looks up a record, so it loads the file. Python's `zipfile`, and scanners
built on it, look for the exact name, find no pickle and may call the file harmless.

Cause: An archive packed again on a system that changes case, or one made so that a scanner does not find
its pickle.

Remedy: ckpttool reads the record as torch would, so go by its other findings. Save the checkpoint again to
get ordinary names; if it came from elsewhere, ask where.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK134", "case-name", "warning")
