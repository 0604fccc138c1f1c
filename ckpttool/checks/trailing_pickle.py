"""Something follows the end of the pickle.

What: Behind the STOP of the pickle, inside the same record, come more bytes, possibly a second pickle. The
finding says how many bytes and where they begin.

Why: `torch.load` stops reading at STOP and never mentions the rest. Scanners and other readers may look at
the second pickle and not at the first, or the other way round, so that two programs see two files.

Cause: A record that was patched by appending, or content hidden from one of two readers. torch writes
nothing behind STOP.

Remedy: Do not load the file. Get the original from its author, or take the previous checkpoint.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK123", "trailing-pickle", "error", axis="hostile")
