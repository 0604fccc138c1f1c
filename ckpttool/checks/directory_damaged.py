"""The archive's directory contradicts itself.

What: An archive ends with a directory, one or two end records and a locator, which state each other's
place, size and count. Here a signature is missing or a number is not what is found. Recorded and found
values are given.

Why: torch goes by some of these numbers and ignores others: the same kind of damage gives `not a ZIP
archive`, `invalid header`, `too many files`, or no error at all. Tools that go by the other numbers see
other records.

Cause: Changed bytes at the end of the file, a page lost or doubled in the middle (which moves all that
follows), or line endings converted by a text-mode transfer.

Remedy: Fetch the file again in binary mode, or take the previous checkpoint. The tensors before the damage
are often whole; `ckpttool inspect` shows what can still be described.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK121", "directory-damaged", "error", axis="integrity")
