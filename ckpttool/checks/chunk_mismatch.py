"""A chunk is not what the metadata of the distributed checkpoint says.

What: The tensor that is stored in a chunk has another element type or shape than `.metadata` records, is no dense
tensor at all, or its box lies outside of the tensor.

Why: Loading believes the metadata for how much memory to take and the chunk for what to put there. Another type is
converted in silence, another shape stops the load on one rank.

Cause: Data files and metadata of two different saves in one folder: overwritten in part, or copied together. A save
into the folder of an older one that was killed before its metadata replaced the old.

Remedy: Take all files from one save. If that save was never finished, take the checkpoint before it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK814", "chunk-mismatch", "error", axis="integrity")
