"""The pickle applies an operation to a value of the wrong kind.

What: It sets an item on something that is no mapping, appends to what is no list, calls what is no name, or
builds a name from something that is not text. The finding gives the byte offset.

Why: torch before 2.10 carried out some of these on tensors and could be made to corrupt memory under
`weights_only=True` (CVE-2026-24747); later versions refuse. No writer produces them.

Cause: A file built to attack its reader, or a damaged pickle.

Remedy: Do not load the file. Fetch it again from its author or take the previous checkpoint, and keep torch
at 2.10 or later.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK205", "pickle-type-confusion", "error", axis="hostile")
