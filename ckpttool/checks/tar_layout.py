"""The file is in the tar layout that torch gave up in 2017.

What: A tar archive with members `storages`, `tensors` and `pickle`, as torch 0.1.10 and older wrote. It is
described as far as its members can be followed.

Why: `torch.load` with `weights_only=True`, the default since 2.6, refuses it, since its loader runs what the
pickle names. The layout records no checksum.

Cause: A checkpoint from 2017 or before; or a file that imitates one, because old scanners did not look into
it.

Remedy: If you trust its origin, load it once in an isolated environment and save the weights as safetensors.
Otherwise leave it alone.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK215", "tar-layout", "warning")
