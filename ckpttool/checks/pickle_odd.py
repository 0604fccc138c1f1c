"""The pickle does something harmless that no known writer does.

What: It names a protocol that does not exist, skips memo slots, leaves values on the stack at its end,
holds an integer of many bytes, or builds one object twice. The finding says which.

Why: `torch.load` accepts it. It shows that the pickle was not made by `torch.save`, or not left as it was.

Cause: A writer in another language, a pickle edited by hand, or a damaged byte without consequences.

Remedy: Go by the other findings. If there is no other and you know the writer, nothing has to be done;
otherwise save the checkpoint again from its source.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK210", "pickle-odd", "warning")
