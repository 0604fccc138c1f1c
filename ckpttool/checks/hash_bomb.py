"""A key of a dict can never be hashed.

What: A dict key is a nested tuple that unfolds to an enormous number of elements, or that is nested
extremely deep, although it takes few bytes in the file.

Why: Python hashes a key when it is set. `torch.load` never returns from the one kind (a file of about a
kilobyte is enough) and crashes the process on the other, with `weights_only=True` as well.

Cause: A file built to stop the program that loads it. State dicts have text or small numbers as keys.

Remedy: Do not load the file anywhere, not even to look at it. ckpttool has judged it without hashing the
key.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK208", "hash-bomb", "error", axis="safety")
