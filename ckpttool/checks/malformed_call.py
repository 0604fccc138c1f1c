"""A harmless function is called in a way that no writer calls it.

What: A name on the list of data-only globals is called with arguments that torch never writes, such as
`bytearray(68719476736)`. The finding names the call and where in the tree it stands.

Why: `torch.load` allows the name and carries the call out, whatever the arguments, with `weights_only=True`
as well: it allocates gigabytes, or builds objects that later crash the process.

Cause: A file built to exhaust memory or to reach code behind an allowed name, or a damaged argument.

Remedy: Do not load the file. Fetch it again or take the previous checkpoint; if a program of yours writes
such calls, let it save tensors and plain values.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK209", "malformed-call", "error", axis="safety")
