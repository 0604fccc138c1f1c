"""The pickle uses operations that torch's safe loader refuses.

What: torch writes pickle protocol 2 and its `weights_only` loader knows that subset alone. This pickle has
operations outside of it, such as those of protocol 4 and 5; the finding names them.

Why: `torch.load` fails with `Unsupported operand N` although nothing may be wrong with the content.
ckpttool understands the operations and judges what they build.

Cause: A checkpoint saved with `pickle_protocol=4` or higher or with plain `pickle.dump`, one from another
library, or one built by hand to use an operation that scanners overlook.

Remedy: In the program that made the checkpoint, save it with `torch.save` and its default protocol, as a
dict of tensors and plain values. `ckpttool inspect` shows what is inside meanwhile.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK204", "foreign-opcode", "warning")
