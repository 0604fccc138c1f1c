"""The file asks for far more memory than it has bytes.

What: The storages of a legacy or tar file are declared at least 1 MiB and a hundred times larger than the
whole file. Both byte counts are named.

Why: `torch.load` allocates each storage from its declared size before it reads a single byte of content. A
file of 400 bytes can so ask for 64 GiB, and the process ends with `can't allocate memory` or is killed.

Cause: A file made to exhaust memory, a damaged element count, or a download that stopped in its first per
cent.

Remedy: Do not load the file. If it is a download, fetch it again and compare its size with the one that the
source states; `ckpttool verify` says whether it also ends early.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._places import storage_keys
from ckpttool.model import Damage
from ckpttool.rules import Context

MARGIN = 1 << 20
"""Bytes; less than this is not worth a word."""

TIMES = 100
"""A cut download also declares more than it holds; one below a hundredth of its size is as bad to load."""

_ALLOCATES_FIRST = frozenset({"torch-legacy", "torch-tar"})


@judges(__doc__, "CK315", "huge-allocation", "error", axis="hostile")
def huge_allocation(context: Context) -> Iterator[Damage]:
    """At most one finding: the declared bytes of all storages against the file's size."""
    checkpoint = context.checkpoint
    declared = sum(storage.nbytes for storage in checkpoint.storages)
    limit = max(checkpoint.nbytes + MARGIN, TIMES * checkpoint.nbytes)
    if checkpoint.format not in _ALLOCATES_FIRST or declared < limit:
        return
    sizes = [storage.nbytes for storage in checkpoint.storages]
    largest = sizes.index(max(sizes))
    where = storage_keys(checkpoint, [largest])[largest][0]
    message = f"storages are declared as {declared} bytes, and the whole file has {checkpoint.nbytes}"
    yield Damage("huge-allocation", where, message, {"declared": declared, "file": checkpoint.nbytes})
