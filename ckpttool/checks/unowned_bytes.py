"""The archive holds bytes that belong to no record.

What: Between the records, or before the directory, lie bytes that no directory entry, header or padding
accounts for. The finding gives the range, and says when a complete record hides in it.

Why: Loaders follow the directory and never see them. Tools that walk from header to header do, so a record
hidden there is content for the one and nothing for the other. Where a record was lost from the directory,
its tensor is lost too.

Cause: A record removed from the directory but left in the file, pages inserted by a broken copy, or
something hidden on purpose.

Remedy: Fetch the file again from a source that you trust, or take the previous checkpoint. Loading and
saving anew drops the hidden bytes, but do that only with a file whose other findings are harmless.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK114", "unowned-bytes", "error", axis="hostile")
