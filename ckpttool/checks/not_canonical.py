"""The container's bytes are not what its writer would have written.

What: torch's writer leaves no choice: headers, padding, order and directory follow from the records' names,
sizes and checksums. Derived again, some bytes come out different, and the finding says where the first ones
are.

Why: Loaders do not read these bytes, so everything may load. They show that the file was touched after it
was saved, by an edit or by damage that happened to hit nothing in use.

Cause: A changed bit in padding, dates or version fields, or an archive rewritten by a tool that imitates
torch's layout.

Remedy: If `ckpttool verify` proves all checksums, the tensors are whole: save the checkpoint again and keep
an eye on the disk. If you did not expect an edited file, fetch the original.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK118", "not-canonical", "warning")
