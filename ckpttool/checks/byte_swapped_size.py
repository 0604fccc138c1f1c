"""A size makes sense only with its bytes in reverse order.

What: A length or count in the file is absurd as it stands and is exactly what the rest of the file needs
once its bytes are reversed. Both numbers are given.

Why: Legacy files record neither a usable byte order nor a checksum: torch reads the count as it stands and
reports a storage of quintillions of bytes (`storage has wrong byte size`). The values behind the count are
reversed as well, and would be silently wrong.

Cause: A checkpoint written on a big-endian machine (s390x, some POWER systems) and read on a little-endian
one, or by a program that does not convert.

Remedy: Load it on a machine of the kind that wrote it and save it there with a current torch, whose
archives record the byte order. Then run `ckpttool verify` on the new file.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK116", "byte-swapped-size", "error", axis="integrity")
