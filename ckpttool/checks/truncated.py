"""The file ends before its content does.

What: The file stops inside a record, before its directory, or short of the bytes that its header promises.
The finding says where it ends, how many bytes are known to be missing, and what is still whole before that
point.

Why: No loader returns anything from it. Depending on where the cut fell, `torch.load` says `failed finding
central directory`, `not a ZIP archive`, a bare `Invalid argument` (an archive with less than 64 KiB left)
or `unexpected EOF`; safetensors says `incomplete metadata, file not fully covered`. None of them is a
problem of versions.

Cause: A download or copy that was interrupted, a process killed while it was saving, a full disk or an
exceeded quota. `torch.save` writes straight into the target file, so a crash also takes the previous
content with it.

Remedy: If the file was downloaded, delete it, fetch it again and compare its size with the source's. If
training wrote it, use the checkpoint before it after `ckpttool verify` has passed that one. `ckpttool
inspect` lists what the file still describes.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK101", "truncated", "error", axis="integrity")
