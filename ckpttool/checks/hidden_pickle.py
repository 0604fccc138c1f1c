"""The archive holds a pickle or code that the checkpoint does not use.

What: A record outside of the checkpoint's own tree looks like a pickle or like Python source. The finding
names the record and what it asks to import.

Why: `torch.load` does not touch it, so the checkpoint may load well. A program that unpacks the archive or
loads every pickle in it runs it, and scanners that look at one pickle alone do not see it.

Cause: A payload that waits for another loader, or a script packed along by mistake.

Remedy: Do not unpack the archive. Get the file from its author without the record, or take the previous
checkpoint.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK207", "hidden-pickle", "error", axis="safety")
