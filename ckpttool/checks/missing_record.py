"""The archive lacks a record that a checkpoint must have.

What: A torch archive needs `data.pkl` (the tree), `version` and a top folder that all records share. The
finding says which one is not there.

Why: `torch.load` refuses with `failed locating file data.pkl`, `Expected hasRecord("version") to be true`
or `file in archive is not in a subdirectory`. Without `data.pkl` the names and shapes are gone, although
the bytes of the tensors may be whole.

Cause: An archive that was unpacked and packed again without its top folder or its hidden files, a damaged
directory entry, or a zip file that is no checkpoint.

Remedy: Get the original file again. If you packed it yourself, pack the folder and not its content, hidden
files included. `ckpttool inspect` lists what is there.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK111", "missing-record", "error", axis="integrity")
