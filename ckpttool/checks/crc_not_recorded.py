"""The file does not record checksums for its tensors.

What: A zip archive in torch's format whose records of tensor bytes carry no CRC-32: the field is zero. The
finding counts the records. Formats that never record one (safetensors, torch's format before 1.6) are not
reported here.

Why: Damage to the bytes cannot be told from the file alone, so `verify` cannot prove them intact.
Everything else is checked as always.

Cause: Saved with `torch.serialization.set_crc32_options(False)`, which makes saving a little faster.

Remedy: Save with checksums, the default. For files that exist, keep a digest of each beside it, such as
`sha256sum` writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import expected_bytes
from ckpttool.model import Damage
from ckpttool.rules import Context

_ARCHIVES = frozenset({"torch-zip", "torchscript"})


@judges(__doc__, "CK103", "crc-not-recorded", "info")
def crc_not_recorded(context: Context) -> Iterator[Damage]:
    """Storages of an archive whose record has no checksum, as one finding."""
    checkpoint = context.checkpoint
    if checkpoint.format not in _ARCHIVES or any(d.rule == "truncated" for d in checkpoint.damage):
        return
    holding = {storage.record for storage in checkpoint.storages if storage.span is not None}
    records = [e for e in checkpoint.extents if e.name in holding and expected_bytes(e)]
    bare = [e for e in records if e.checksum is None]
    if bare:
        message = f"{len(bare)} of {len(records)} records of tensor bytes have no CRC-32 to prove them intact"
        yield Damage("crc-not-recorded", "", message, {"records": len(records), "unrecorded": len(bare)})
