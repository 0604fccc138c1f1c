"""A storage holds more or fewer bytes than the checkpoint declares for it.

What: The pickle gives each storage an element type and a count, thus a number of bytes, and the record that
holds the storage has another number. Both are named. For compressed records the size after decompression
counts.

Why: `torch.load` of 2.10 and later refuses the file with `record size … does not match expected size`;
older ones did not look. With `mmap=True` nobody looks: a record that is too short is read past its end, so
the next record's header and bytes come back as weights without an error. The legacy format refuses with
`storage has wrong byte size`.

Cause: Several processes that wrote one path at the same time, a file cut and filled with zeros, a pickle
and records from two different saves, or a changed count.

Remedy: Take the previous checkpoint or fetch the file again, and let one process alone write a path. Do not
open this file with `mmap=True`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import MOST, Fault, capped, quoted, storage_keys
from ckpttool.errors import printable
from ckpttool.model import Checkpoint, Damage, Storage
from ckpttool.rules import Context


@judges(__doc__, "CK302", "storage-size", "error", axis="integrity")
def storage_size(context: Context) -> Iterator[Damage]:
    """Storages whose bytes are there and are too many or too few, one finding each."""
    checkpoint = context.checkpoint
    inflated = {e.name: e.size for e in checkpoint.extents if e.method != "stored" and e.size is not None}
    wrong: dict[int, int] = {}
    for index, storage in enumerate(checkpoint.storages):
        present = _present(storage, inflated)
        if present is not None and present != storage.nbytes:
            wrong[index] = present
    first = list(wrong)[:MOST]
    users = storage_keys(checkpoint, first)
    found = ((users[i][0], _fault(checkpoint, checkpoint.storages[i], wrong[i])) for i in first)
    yield from capped("storage-size", found, len(wrong), "storages")


def _present(storage: Storage, inflated: dict[str, int]) -> int | None:
    if storage.inline is not None:
        return len(storage.inline)
    if storage.span is None:
        return None
    return inflated.get(storage.record, storage.span.nbytes)


def _fault(checkpoint: Checkpoint, storage: Storage, present: int) -> Fault:
    gap = abs(storage.nbytes - present)
    way = "too few" if present < storage.nbytes else "too many"
    message = f"storage {quoted(storage.key)} is declared as {storage.nbytes} bytes and has {present}: {gap} {way}"
    if checkpoint.format == "torch-zip" and present < storage.nbytes:
        message += "; torch.load with mmap=True does not check this"
    return message, {"storage": printable(storage.key[:200]), "declared": storage.nbytes, "present": present}
