"""Bytes differ from what was written.

What: The CRC-32 of a record, computed from its bytes, is not the one that the file records for it. The
finding names the record, both values, the tensors whose bytes are in it, and how many tensors are proved
intact.

Why: At least one bit changed after the save. `torch.load` does not check: it returns the changed values,
and training goes on from them.

Cause: A failing disk, memory or network share, a transfer in text mode, a copy that lost or repeated a
page, or a tool that changed the bytes and left the checksum.

Remedy: Fetch the file again from where it was intact and verify that copy. If there is none, tensors
outside the named records are as they were written and can be kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import contradicted, listed, proved, reached, shown
from ckpttool.checks._places import Fault
from ckpttool.errors import printable
from ckpttool.model import Damage, Extent, Json, Tensor
from ckpttool.rules import Context


@judges(__doc__, "CK102", "crc-mismatch", "error", axis="integrity", content=True)
def crc_mismatch(context: Context) -> Iterator[Damage]:
    """Records that contradict their checksum, each with its tensors."""
    wrong = contradicted(context)
    if not wrong:
        return
    held = _tensors_by_record(context)
    good = proved(context)
    intact = sum(len(keys) for name, keys in held.items() if name in good)
    total = sum(len(keys) for keys in held.values())
    summary = f"; {intact} of {total} tensors are intact (CRC verified)" if total else ""
    found = [
        (_where(name, held), _fault(context, extent, held.get(name, []), summary)) for name, extent in wrong.items()
    ]
    yield from listed("crc-mismatch", found, "records")


def _tensors_by_record(context: Context) -> dict[str, list[str]]:
    """Keys of tensors by the record that holds their bytes, each node once."""
    checkpoint = context.checkpoint
    held: dict[str, list[str]] = {}
    seen: set[int] = set()
    for path, index in reached(checkpoint):
        if index in seen:
            continue
        seen.add(index)
        tensor = checkpoint.nodes[index]
        if isinstance(tensor, Tensor) and tensor.storage is not None:
            held.setdefault(checkpoint.storages[tensor.storage].record, []).append(shown(path))
    return held


def _where(name: str, held: dict[str, list[str]]) -> str:
    return held[name][0] if name in held else printable(name)


def _fault(context: Context, extent: Extent, keys: list[str], summary: str) -> Fault:
    assert context.measures is not None
    assert extent.checksum is not None
    found = context.measures.spans[extent.name]
    have, needs = f"{found.crc32:08x}", f"{extent.checksum.value:08x}"
    message = f"record {printable(extent.name)} has CRC-32 {have}, the file records {needs}"
    if len(keys) > 1:
        message += f"; {len(keys)} tensors are in it"
    if not keys:
        message += "; no tensor's bytes are in it"
    listed_keys: list[Json] = list(keys[:20])
    facts: dict[str, Json] = {
        "record": printable(extent.name),
        "have": have,
        "needs": needs,
        "start": extent.span.start,
        "stop": extent.span.stop,
        "tensors": listed_keys,
    }
    return message + summary, facts
