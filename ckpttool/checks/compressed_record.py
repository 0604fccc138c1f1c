"""A record of the archive is compressed.

What: The record is deflated, where torch stores tensors and the pickle as they are. The finding gives both
sizes in bytes.

Why: `torch.load` inflates it and returns the right values. With `mmap=True` it does not: the compressed
bytes themselves come back as weights, without an error. Reading is slower too, and ranges of a tensor
cannot be read on their own.

Cause: A checkpoint that was unpacked and packed again with an ordinary zip tool, or a platform that repacks
uploads. TorchScript compresses its code, and that is normal.

Remedy: Load it without `mmap=True` and save it again with `torch.save`. To keep the files small use
compression outside of the archive.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK109", "compressed-record", "warning")
