"""The bytes of a tensor are not in the file.

What: The checkpoint describes a storage (key, element type, byte count), and the file holds no record or
block of bytes for it. The finding names the tensors that look into the storage and the bytes that are
missing.

Why: `torch.load` refuses a zip file with `failed locating file data/N: file not found`, and none of its
tensors come back, the intact ones included. In the legacy format a storage that the key list leaves out is
not refused: its tensors come back with whatever the memory held before.

Cause: A file that was cut short, a record dropped or renamed while the archive was packed again, or a
storage key in the pickle that was changed.

Remedy: Fetch the file again or take the previous checkpoint, then run `ckpttool verify` on that one. If
`verify` also reports `truncated`, the file ends early and the missing records were past its end.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import MOST, Fault, capped, quoted, storage_keys
from ckpttool.errors import printable
from ckpttool.model import Damage, Json, Storage
from ckpttool.rules import Context


@judges(__doc__, "CK301", "storage-missing", "error", axis="integrity")
def storage_missing(context: Context) -> Iterator[Damage]:
    """Storages without bytes, one finding each; those on the meta device have none by design."""
    storages = context.checkpoint.storages
    lost = [i for i, storage in enumerate(storages) if _lost(storage)]
    users = storage_keys(context.checkpoint, lost[:MOST])
    found = ((users[i][0], _fault(storages[i], users[i])) for i in lost[:MOST])
    yield from capped("storage-missing", found, len(lost), "storages")


def _lost(storage: Storage) -> bool:
    return storage.span is None and storage.inline is None and storage.device != "meta"


def _fault(storage: Storage, users: tuple[str, ...]) -> Fault:
    message = f"the {storage.nbytes} bytes of storage {quoted(storage.key)} are not in the file"
    if len(users) > 1:
        message += f", and {len(users)} tensors need them" if len(users) < MOST else ", and many tensors need them"
    tensors: list[Json] = list(users)
    return message, {"storage": printable(storage.key[:200]), "nbytes": storage.nbytes, "tensors": tensors}
