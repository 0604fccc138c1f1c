"""What the bytes of each storage are worth: the checksum that the file records, and the one that was computed."""

from __future__ import annotations

from collections.abc import Mapping

from ckpttool.measures import Measures, SpanMeasure
from ckpttool.model import Checkpoint, Extent, Storage
from ckpttool.repairing.case import Proof


def prove(checkpoint: Checkpoint, measures: Measures) -> dict[Storage, Proof]:
    """The worth of every storage, from the extents that hold them and what was measured there. Linear."""
    extents = {extent.span: extent for extent in checkpoint.extents}
    named = {extent.name: extent for extent in checkpoint.extents}
    checked = {extent.span.source for extent in checkpoint.extents if extent.checksum is not None}
    proofs: dict[Storage, Proof] = {}
    for storage in checkpoint.storages:
        extent = named.get(storage.record) if storage.span is None else extents.get(storage.span)
        proofs[storage] = _judge(storage, extent, measures.spans, checked)
    return proofs


def holds(extent: Extent, spans: Mapping[str, SpanMeasure]) -> bool:
    """Whether an extent was read whole and is what its recorded checksum says."""
    found = spans.get(extent.name)
    expected = extent.span.nbytes if extent.size is None else extent.size
    if not expected:
        return True
    if extent.checksum is None or found is None:
        return False
    return found.read == expected and found.crc32 == extent.checksum.value


def _judge(storage: Storage, extent: Extent | None, spans: Mapping[str, SpanMeasure], checked: set[str]) -> Proof:
    if storage.inline is not None:
        return _spelled(storage, extent, spans)
    if storage.span is None:
        return Proof("lost", "its bytes are not in the file") if storage.nbytes else Proof("proved")
    found = spans.get(extent.name) if extent is not None else None
    there = storage.span.nbytes if extent is None or extent.size is None else extent.size
    read = min(there, found.read if found is not None else there)
    if read < storage.nbytes:
        if not read:
            return Proof("lost", "its bytes are not in the file")
        return Proof("partial", f"{storage.nbytes - read} of {storage.nbytes} bytes are missing", read)
    if extent is None or extent.checksum is None:
        return _without_checksum(storage, checked)
    if holds(extent, spans):
        return Proof("proved", "", storage.nbytes)
    have = 0 if found is None else found.crc32
    reason = f"its bytes have CRC-32 {have:08x}, the file records {extent.checksum.value:08x}"
    return Proof("damaged", reason, storage.nbytes)


def _spelled(storage: Storage, extent: Extent | None, spans: Mapping[str, SpanMeasure]) -> Proof:
    """Content that the tree itself spells is worth what the tree's record is."""
    if extent is None or extent.checksum is None:
        return Proof("unprovable", "the file has no checksums", storage.nbytes)
    if holds(extent, spans):
        return Proof("proved", "", storage.nbytes)
    return Proof("damaged", "the tree that spells it contradicts its checksum", storage.nbytes)


def _without_checksum(storage: Storage, checked: set[str]) -> Proof:
    if not storage.nbytes:
        return Proof("proved")
    if storage.span is not None and storage.span.source in checked:
        return Proof("unproved", "it is whole, and its checksum is gone", storage.nbytes)
    return Proof("unprovable", "the file has no checksums", storage.nbytes)
