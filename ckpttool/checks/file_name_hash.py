"""The file's content is not what its name says.

What: The name ends in a hyphen and eight or more hexadecimal digits, as `torch.hub` publishes weights
(`resnet50-0676ba61.pth`), and the SHA-256 of the file begins otherwise. Both are given.

Why: The digits are the only check that such files carry across a download. The bytes are not the
published ones.

Cause: A download that was cut or answered by something else, a file that was loaded, changed and saved
under its old
name, or a newer version published under the same name.

Remedy: Fetch the file again from where it was published. If it was changed on purpose, rename it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.model import Checkpoint, Damage
from ckpttool.rules import Context

_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|pkl|bin|ckpt|safetensors|th)(?:\.tar)?$")
"""``torch.hub``'s ``HASH_REGEX``, with the suffixes that weights have and at least eight digits."""


@judges(__doc__, "CK606", "file-name-hash", "error", axis="integrity", content=True)
def file_name_hash(context: Context) -> Iterator[Damage]:
    """Files whose SHA-256 is known and does not begin as their name says."""
    digests = {} if context.measures is None else context.measures.digests
    for name in wanted_digests(context.checkpoint):
        wanted, have = _hash_in(name), digests.get(name)
        if wanted and have and not have.startswith(wanted):
            message = f"the name says sha256 {wanted}, the file's begins with {have[: len(wanted)]}"
            yield Damage("file-name-hash", name, message, {"needs": wanted, "have": have})


def wanted_digests(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The files of a checkpoint whose names hold a hash: those whose SHA-256 this rule asks for."""
    return tuple(dict.fromkeys(name for name in (checkpoint.source, *checkpoint.files) if _hash_in(name)))


def _hash_in(name: str) -> str | None:
    found = _NAME.search(name)
    # Eight decimal digits are a date far more often than a hash.
    return found[1] if found and not (len(found[1]) == 8 and found[1].isdecimal()) else None
