"""A file of the checkpoint could not be read, so nothing in it was checked.

What: The checkpoint consists of several files, and one of them cannot be opened or parsed, or is no
checkpoint file at all. The finding says which, and why. The other files were checked.

Why: What stands in that file is missing when training resumes: weights, optimizer state or generators. A
resume stops, or goes on without it.

Cause: Missing permission, a broken link into a cache, a Git LFS pointer that was never pulled, or a save that
was interrupted.

Remedy: Make the file readable or fetch it again, and run verify once more. If it cannot be had, take the
checkpoint before this one.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK133", "unreadable-part", "error", axis="integrity")
