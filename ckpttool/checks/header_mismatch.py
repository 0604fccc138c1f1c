"""A record's own header and the archive's directory disagree.

What: Each record is described twice, in a header before its bytes and in the directory at the end of the
file. Here signature, name, flags, method, sizes or checksum differ between the two.

Why: torch reads little of the header: a wrong signature is refused with `invalid header`, but a changed
name length or extra length shifts where the bytes begin, and the tensor is silently made of the wrong
bytes. Other tools trust the header's name and sizes, so they see other content than torch.

Cause: Damage on disk or in transfer that hit a header, or an archive edited so that two readers see two
files.

Remedy: Fetch the file again or take the previous checkpoint. If only header fields differ and no checksum
failed, the tensors can be whole, but nothing here proves it; save the checkpoint anew before you rely on
it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK107", "header-mismatch", "error", axis="integrity")
