"""A record has a name that torch does not write.

What: The name is absolute, climbs with `..`, holds a NUL byte or a backslash, lies outside of the
archive's top folder, or there is no top folder at all. Names are shown with control characters escaped.

Why: `torch.load` refuses an absolute name, a second top folder and a missing one (`file in archive is not in a
subdirectory`) and ignores the rest. A tool that unpacks the archive can be led to write outside of the
folder it was given.

Cause: An archive packed again on another system, or one made to overwrite files of whoever unpacks it.

Remedy: Do not unpack the file with a zip tool. Get the original, or load and save it again if all other
findings are harmless.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK119", "bad-record-name", "error", axis="integrity")
