"""The header means different things to different readers.

What: A key that stands twice, two tensors on the same bytes, sizes whose product leaves 64 bits, or JSON
nested so deeply that parsers give up. The finding names the key.

Why: One parser keeps the first of two equal keys and another the last, so what was checked is not what is
loaded. Sizes that overflow have made readers reach outside of their memory.

Cause: No writer produces this. It is a file made to deceive, or heavy damage that happens to look like one.

Remedy: Do not load it. Take the file from a source that you trust; if it is your own, take the checkpoint
before it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK131", "header-ambiguous", "error", axis="hostile")
