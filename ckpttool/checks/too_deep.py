"""Containers are nested deeper than any real checkpoint.

What: The tree goes down more than 400 levels. What lies below is not shown and not judged.

Why: `torch.load` builds it without trouble. Afterwards printing, comparing, copying or saving it again ends
in a recursion error or crashes the process.

Cause: A linked list of objects that was saved whole, or a file made to crash the program that walks it.
State dicts are a few levels deep.

Remedy: Do not pass the loaded object to code that walks it. Save the part that you need (`ckpttool inspect
--tree` shows the upper levels) as a flat dict.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK213", "too-deep", "warning")
