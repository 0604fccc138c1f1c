"""Checksums where a writer was told to leave them out: what is copied then is also read and summed up."""

from __future__ import annotations

from ckpttool.model import Checkpoint, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Mended
from ckpttool.units import plural, size


def mend(case: Case) -> Mended:
    """Say which records gain a checksum; the writer computes one wherever none is recorded."""
    checkpoint = case.draft.checkpoint
    if checkpoint.format != "torch-zip":
        note = f"{checkpoint.format} has no room for checksums: write a torch archive, or a manifest with ckpttool seal"
        return Mended(case.draft, notes=(note,))
    bare = _bare(checkpoint)
    if not bare:
        return Mended(case.draft)
    total = sum(bare.values())
    reason = f"{plural(len(bare), 'storage')} of {size(total)} without a CRC-32: summed up as they are now"
    return Mended(case.draft, (Step("sum", (), (), reason),))


def _bare(checkpoint: Checkpoint) -> dict[int, int]:
    """Bytes of the storages that have a record of their own and no checksum."""
    reached = {n.storage for n in checkpoint.nodes if isinstance(n, Tensor)}
    return {
        index: storage.nbytes
        for index, storage in enumerate(checkpoint.storages)
        if index in reached and storage.span is not None and storage.nbytes and storage.checksum is None
        and storage.record and not storage.key.startswith("ndarray ")
    }  # fmt: skip
