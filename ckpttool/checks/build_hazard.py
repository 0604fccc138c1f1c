"""The file replaces attributes that a program relies on.

What: The pickle sets a method name or a name such as `__class__` on a container or a tensor, where torch
itself writes data only (`_metadata`).

Why: `torch.load` carries it out, with `weights_only=True` as well. Nothing runs at that moment, but an
`OrderedDict` whose `items` was replaced, or a tensor of another class, behaves differently afterwards.

Cause: An object with unusual attributes that was saved whole, or a file made to confuse the program that
uses it.

Remedy: Look at the place with `ckpttool inspect --tree`. If you do not know the reason, do not use the
file; if it is your own, save plain dicts and tensors.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK206", "build-hazard", "warning")
