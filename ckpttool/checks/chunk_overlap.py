"""Two chunks hold the same elements of a tensor, or the same bytes of a file.

What: Boxes that `.metadata` lists for one tensor overlap, or two entries claim overlapping ranges of a data file.

Why: Loading writes such elements twice, and which value stays depends on the order of reading. Of two entries in the
same bytes at least one is not what was saved.

Cause: Replicated shards that were not deduplicated and differ between ranks, two saves into one folder at a time, or
metadata that was edited.

Remedy: Save again into an empty folder, from one job. If both chunks hold equal values the content is not lost: load
it, compare, and save anew.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK813", "chunk-overlap", "error", axis="integrity")
