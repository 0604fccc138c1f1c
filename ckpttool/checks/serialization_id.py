"""The archive's chained checksum does not match its records.

What: torch ends an archive with `.data/serialization_id`, 40 digits: half of them stand for the records'
names, half are chained from the CRC-32 of each record in the order of writing. Computed anew from this file
they differ.

Why: No loader looks at it. It covers what single checksums do not: a record that was dropped, moved or
added, or one whose content and checksum were changed together.

Cause: An archive that was edited or packed again after it was saved. Damage to the id itself also shows as
`crc-mismatch` of that record.

Remedy: If a tool of yours rewrote the archive on purpose, save the checkpoint again with `torch.save`.
Otherwise take the original, since this one is not as it was written.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK117", "serialization-id", "error", axis="integrity")
