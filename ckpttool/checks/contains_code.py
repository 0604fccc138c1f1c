"""The file is a TorchScript archive and contains a program.

What: Beside tensors the archive holds source code of a model under `code/`, which `torch.jit.load` compiles
and runs. ckpttool reads the tensors and leaves the code alone.

Why: `torch.load` refuses such files as long as `weights_only` is on. `torch.jit.load` runs what it finds,
and its operators can read and write files, so loading one is like running a program from its author.

Cause: A model exported for deployment with `torch.jit.save`. Training checkpoints are not TorchScript.

Remedy: For weights to train from, ask for a state dict. Open the archive with `torch.jit.load` only if you
trust its author as you would trust a program, and in a sandbox otherwise.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK203", "contains-code", "warning")
