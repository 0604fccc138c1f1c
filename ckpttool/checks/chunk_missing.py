"""A distributed checkpoint lacks chunks that its metadata lists.

What: `.metadata` puts a tensor's chunk, or a value, into a file that is not here or ends before it, or names no
place for it. Without `.metadata` itself every name is lost, and what the data files hold is listed by where it lies.

Why: `torch.distributed.checkpoint.load` stops, with an error of one rank that the others wait for. What is there
can be read all the same.

Cause: A copy that left out a rank's file or broke off, a node's local disk that was never gathered, a job that was
killed between the ranks' files and the metadata.

Remedy: Fetch the files that are named from where the save ran; they are of no use from another save. If they are
lost, take the checkpoint before this one.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK811", "chunk-missing", "error", axis="integrity")
