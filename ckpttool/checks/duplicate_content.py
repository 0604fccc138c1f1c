"""The same content is stored more than once.

What: Storages of at least 64 KiB have the same size and the same CRC-32 and are not constant. The finding
names the tensors and the bytes that one copy would save. Tensors that share one storage are not duplicates.

Why: The file is larger than it needs to be. Tied weights that are saved apart may drift apart when training
goes on from this file.

Cause: A tied pair saved as two tensors (through a format without sharing, or a copy made before the save),
an average of weights that equals them because it was just begun, or the same weights under two keys.

Remedy: If the pair is meant to be tied, tie it again after loading and before the next save. If a copy is
not needed, leave its key out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import expected_bytes, listed, measured
from ckpttool.checks._places import Fault
from ckpttool.model import Damage, Json
from ckpttool.rules import Context

LEAST = 64 << 10


@judges(__doc__, "CK603", "duplicate-content", "info", content=True)
def duplicate_content(context: Context) -> Iterator[Damage]:
    """Groups of storages with equal content, the largest saving first."""
    groups: dict[tuple[int, int], dict[int, str]] = {}
    known = _fingerprints(context)
    for one in measured(context, lambda m: bool(known) and not m.constant):
        storage = one.tensor.storage
        if storage is not None and (print_ := known.get(context.checkpoint.storages[storage].record)):
            groups.setdefault(print_, {}).setdefault(storage, one.key)
    same = [(size, list(keys.values())) for (size, _), keys in groups.items() if len(keys) > 1]
    same.sort(key=lambda group: -group[0] * (len(group[1]) - 1))
    yield from listed("duplicate-content", [(keys[0], _fault(size, keys)) for size, keys in same], "groups")


def _fingerprints(context: Context) -> dict[str, tuple[int, int]]:
    """Size and CRC-32 by record, of records that hold one storage, were read whole and are not the only such."""
    spans = {} if context.measures is None else context.measures.spans
    holders: dict[str, int] = {}
    for storage in context.checkpoint.storages:
        holders[storage.record] = holders.get(storage.record, 0) + 1
    found = {}
    for extent in context.checkpoint.extents:
        span, size = spans.get(extent.name), expected_bytes(extent)
        if span is not None and span.read == size >= LEAST and holders.get(extent.name) == 1:
            found[extent.name] = (size, span.crc32)
    often = Counter(found.values())
    return {name: twice for name, twice in found.items() if often[twice] > 1}


def _fault(size: int, keys: list[str]) -> Fault:
    others = ", ".join(keys[1:4]) + (", …" if len(keys) > 4 else "")
    message = f"its {size} bytes are stored {len(keys)} times, as {others} too"
    tensors: list[Json] = list(keys[:20])
    return message, {"nbytes": size, "copies": len(keys), "tensors": tensors}
