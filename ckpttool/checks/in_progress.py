"""The file is still being written.

What: Size or modification time moved while the file was read, or its name is that of a temporary file.
Other findings describe the state of that moment.

Why: A checkpoint that is read during its save looks truncated or damaged, and a job that resumes from it
fails. `torch.save` writes into the target itself, so a half-written file has its final name.

Cause: A training process that is saving, a download or a synchronization that is under way, or a temporary
file left behind by a process that was killed.

Remedy: Wait until the writer is done and run `ckpttool verify` again. If no process writes the file any
more, it is a leftover: use the checkpoint before it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK129", "in-progress", "warning")
