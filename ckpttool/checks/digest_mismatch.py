"""The content is not what was sealed.

What: A manifest stands beside the checkpoint, and the digests of a file's blocks are not those that it holds.
The finding gives how many blocks and which tensors differ, and what tells this from a deliberate edit.

Why: Bytes changed after they were sealed. Formats without checksums of their own (safetensors, legacy files)
load the changed values without a word.

Cause: A failing disk, memory or network share, a transfer that was cut or went wrong.

Remedy: Fetch the file again from where it was intact and verify that copy. Tensors that the finding does not
name are as they were sealed and can be kept: `ckpttool repair` takes them out.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._seals import Altered, altered, message, seal_of, tensors_changed
from ckpttool.errors import printable
from ckpttool.manifest import Sealed
from ckpttool.model import Damage, Json
from ckpttool.rules import Context


@judges(__doc__, "CK135", "digest-mismatch", "error", axis="integrity", content=True)
def digest_mismatch(context: Context) -> Iterator[Damage]:
    """Sealed files whose bytes are others, and that were not written anew."""
    seal = seal_of(context)
    if seal is None:
        return
    for found in altered(context):
        if found.kind == "damaged":
            yield Damage("digest-mismatch", printable(found.file.name), message(seal, found), facts(seal, found))


def facts(seal: Sealed, found: Altered) -> dict[str, Json]:
    """The numbers behind the message; at most twenty keys and blocks."""
    changed, _ = tensors_changed(seal)
    keys: list[Json] = [*changed[:20]]
    blocks: list[Json] = [*found.blocks[:20]]
    return {
        "manifest": printable(seal.where), "bytes": found.nbytes, "sealed_bytes": found.file.nbytes,
        "block": found.file.block, "blocks": blocks, "tensors": keys,
    }  # fmt: skip
