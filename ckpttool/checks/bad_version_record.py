"""A record that describes the archive holds something unknown.

What: `version`, `byteorder`, `.format_version` or `.storage_alignment` holds a value that torch does not
write. The finding shows it.

Why: `torch.load` stops with `Couldn't parse the version`, `maximum supported version`, `Unknown endianness
type` or `invalid literal for int()`, and a wrong byte order that is still a valid word would reverse every
number. Some wrong values go unnoticed.

Cause: Damage to a small record, an archive edited by hand, or a version of the format that did not exist
when this was written.

Remedy: If `crc-mismatch` names the same record, the file is damaged: fetch it again or take the previous
checkpoint. If the version is merely newer, look for a newer ckpttool and torch.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK120", "bad-version-record", "error", axis="integrity")
