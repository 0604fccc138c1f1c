"""The checkpoint was written anew after it was sealed.

What: A manifest stands beside the checkpoint and does not describe it, but the file is sound in itself: its own
checksums agree, or its header describes other tensors and fits. So it was changed on purpose, not damaged.

Why: Whoever relies on the seal relies on other values than these.

Cause: The checkpoint was saved again, migrated, converted or edited, and not sealed again; or somebody changed
what should not be changed.

Remedy: If the change was meant, run `ckpttool seal` again. If it was not, find out who wrote the file and take
the copy that was sealed.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._seals import altered, message, seal_of
from ckpttool.checks.digest_mismatch import facts
from ckpttool.errors import printable
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK136", "edited-since-sealed", "error", content=True)
def edited_since_sealed(context: Context) -> Iterator[Damage]:
    """Sealed files that were written anew."""
    seal = seal_of(context)
    if seal is None:
        return
    hint = "if this was meant: ckpttool seal"
    for found in altered(context):
        if found.kind == "edited":
            where = printable(found.file.name)
            yield Damage("edited-since-sealed", where, message(seal, found), facts(seal, found), hint)
