"""A checkpoint directory was not written to its end.

What: The file that this framework writes last is missing, or temporary files of an unfinished write
are still there.

Why: Auto-resume picks up the newest directory. One that lacks parts crashes the job again and again,
or resumes with
weights of one step and an optimizer of another.

Cause: The job was killed or the disk filled while the checkpoint was written, or the save is still going on.

Remedy: Wait if the job runs. Otherwise set the directory aside and resume from the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing
from ckpttool.model import Damage
from ckpttool.rules import Context

_TEMPORARY = ("*.tmp", "*.tmp.*", ".metadata.tmp", "tmp-checkpoint-*", "*.incomplete", "*.part")
_MARKERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("trainer_state.json", ("training_args.bin", "rng_state*.pth"), ()),
    ("trainer_state.json", ("optimizer.pt", "scheduler.pt"), ()),
    ("random_states_0.pkl", ("optimizer.bin", "scheduler.bin"), ("trainer_state.json",)),
    (".metadata", ("*.distcp",), ("__*.metadata",)),
)
"""What is written last, the files that show who writes, and files that show it is another's directory."""


@judges(__doc__, "CK705", "unfinished-save", "error", axis="integrity")
def unfinished_save(context: Context) -> Iterator[Damage]:
    """Directories without their last file, and files that were to be renamed when they were whole."""
    files = context.checkpoint.files
    if context.checkpoint.format not in ("directory", "dcp"):
        return
    for marker, signs, others in _MARKERS:
        shown = all(_any(files, sign) for sign in signs) and not any(_any(files, other) for other in others)
        if shown and not _any(files, marker):
            message = f"'{marker}', which is written last, is missing beside {listing(list(signs))}"
            yield Damage("unfinished-save", marker, message, {"missing": marker})
            break
    left = [name for name in files if any(fnmatchcase(name.rpartition("/")[2], p) for p in _TEMPORARY)]
    if left:
        message = f"{len(left)} temporary files of an unfinished write: {listing(left)}"
        yield Damage("unfinished-save", left[0], message, {"files": json_list(left)})


def _any(files: tuple[str, ...], pattern: str) -> bool:
    return any(fnmatchcase(name.rpartition("/")[2], pattern) for name in files)
