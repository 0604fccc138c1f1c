"""Two records of the archive share bytes of the file.

What: The directory gives two records ranges of the file that overlap, or gives both the same place. The
finding names the records and the bytes.

Why: `torch.load` follows the directory and checks nothing: two tensors silently get the same bytes, so at
least one of them is wrong. Overlap is also how a small archive is made to unpack to an enormous one.

Cause: A damaged offset in the directory, or an archive built by hand. No ordinary writer lets records
overlap.

Remedy: Do not use the file. Fetch it again or take the previous checkpoint, and run `ckpttool verify` on
that one.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK106", "overlapping-records", "error", axis="hostile")
