"""The pickle refers to an outside object in a way that torch does not.

What: A persistent id stands for a storage and has the form `('storage', class, key, location, count)`. This
one has another form. The value is kept as it stands and no tensor is made of it.

Why: `torch.load` refuses it, or fails in its own code. Other libraries use persistent ids for objects of
their own.

Cause: A pickle of another library, an old checkpoint with saved source code of modules, or a damaged
pickle.

Remedy: If another library wrote the file, export the weights from there as a state dict or as safetensors.
Otherwise fetch the file again or take the previous checkpoint.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK211", "persistent-id", "warning")
