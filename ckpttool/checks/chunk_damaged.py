"""A chunk of a distributed checkpoint cannot be read at all.

What: Where `.metadata` says that a chunk lies, the data file holds something else than an archive of torch, or one of
which nothing can be read. Damage that leaves the tensor readable is reported under its own rule.

Why: The tensor lacks this part, and loading stops there.

Cause: A data file that was overwritten in part or copied badly, a disk that lost a page, or a file of another save
under the same name.

Remedy: Fetch the file that is named again. The other chunks in it were read, and those of other files need not be
fetched.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK815", "chunk-damaged", "error", axis="integrity")
