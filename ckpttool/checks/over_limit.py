"""Reading stopped at a limit that real checkpoints stay far below.

What: The number of pickle operations, the size of a pickle, the length of an integer or a line, or the
number of records passed a bound. The finding gives the bound and, where known, what the file asks for. What
lies behind that point was not looked at.

Why: `torch.load` has no such bounds. Files of a few kilobytes can make it run for ever, fill the memory or
crash the process, also with `weights_only=True`.

Cause: A file built to exhaust its reader, or damage that turned a length into a huge number. Limits are set
well above a checkpoint of a million tensors.

Remedy: Do not load the file. Get it from its author once more; if `ckpttool verify` repeats the finding on
a fresh copy, leave it alone.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK115", "over-limit", "error", axis="hostile")
