"""A storage has an element type that torch does not know.

What: The pickle declares a storage of a class that is none of torch's storage classes, so neither its
element size nor its meaning is known. The finding names the class.

Why: `torch.load` refuses the name as an unsupported global. The class decides how many bytes an element
has, so nothing can be read in its place.

Cause: A damaged class name (`FloatStorage` with one letter changed), an extension with storages of its own,
or a file made by hand.

Remedy: Fetch the file again or take the previous checkpoint. If an extension wrote it, load it there and
save ordinary tensors.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK312", "storage-class", "error", axis="integrity")
