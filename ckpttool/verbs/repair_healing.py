"""Records that a checksum contradicts and that can be had back whole: one flipped bit, or a twin in another file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from ckpttool.draft import Content, Copied
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_salvage import Salvaged
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Checksum, Span, repeated
from ckpttool.repairing.case import Wishes
from ckpttool.repairing.syndrome import flipped_bit, mimicry
from ckpttool.source import Source
from ckpttool.units import plural


@dataclass(frozen=True, slots=True)
class Healing:
    """Contents that stand in for damaged records, by record name, with their checksums and what was done.

    ``curable`` are the records that ``fix_bit`` would mend: the file's byte and the probability of a mistake.
    """

    contents: Mapping[str, tuple[Content, int]] = field(default_factory=dict, hash=False)
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)
    curable: Mapping[str, tuple[int, float]] = field(default_factory=dict, hash=False)


def heal(
    found: Salvaged, source: Source, computed: Mapping[str, int], donor: Checkpoint | None, wishes: Wishes
) -> Healing:
    """Everything that can be had back and proved. Reads only records into which bytes were put."""
    from ckpttool.verbs.repair_inserted import without_inserted

    twins = _twins(donor)
    contents: dict[str, tuple[Content, int]] = {}
    reasons: dict[str, str] = {}
    curable: dict[str, tuple[int, float]] = {}
    for record in _wrong(found, computed):
        checksums = found.checksums.get(record.name, ())
        twin = next((twins[crc, record.usize] for crc in checksums if (crc, record.usize) in twins), None)
        if twin is not None and donor is not None and twin.checksum is not None:
            contents[record.name] = twin, twin.checksum.value
            reasons[record.name] = f"the same bytes stand in {donor.source}: its checksum is the recorded one"
            continue
        torn = found.torn.get(record.name, 0)
        spans = without_inserted(source, record, torn, checksums) if torn > 0 else None
        if spans is not None:
            contents[record.name] = Copied(spans[0], Checksum("crc32", spans[1])), spans[1]
            reasons[record.name] = f"{plural(torn, 'byte')} that were put into it are taken out"
            continue
        for crc in checksums:
            bit = flipped_bit(crc, computed.get(record.name, crc), record.usize)
            if bit is None or record.stop > source.size:
                continue
            odds = mimicry(record.usize)
            curable[record.name] = record.data + bit[0], odds
            if wishes.fix_bit:
                span = Span(source.name, record.data, record.stop)
                contents[record.name] = flipped(source, span, *bit), crc
                reasons[record.name] = about(record.data + bit[0], bit[1], odds)
            break
    return Healing(contents, reasons, curable)


def about(at: int, bit: int, odds: float) -> str:
    """What was done to a bit, in words."""
    return (
        f"bit {bit} of byte {at} of the file turned back, as the checksum says; other damage looks the same with a "
        f"probability of {odds:.1g}"
    )


def _wrong(found: Salvaged, computed: Mapping[str, int]) -> Iterator[Record]:
    """Records that none of their checksums agrees with, or that are cut off."""
    for record in found.records:
        checksums = found.checksums.get(record.name, ())
        if checksums and record.usize and computed.get(record.name) not in checksums and not record.method:
            yield record


def _twins(donor: Checkpoint | None) -> dict[tuple[int, int], Copied]:
    """The other checkpoint's records by checksum and size."""
    if donor is None:
        return {}
    return {
        (extent.checksum.value, extent.span.nbytes): Copied((extent.span,), extent.checksum)
        for extent in donor.extents
        if extent.checksum is not None and extent.method == "stored" and extent.span.nbytes
    }


def flipped(source: Source, span: Span, place: int, bit: int) -> Copied:
    """The bytes of a range with one bit turned: what stands before its byte, the byte, what stands behind."""
    at = span.start + place
    right = bytes([source.read(at, 1)[0] ^ 1 << bit])
    spans = Span(span.source, span.start, at), repeated(right, 0, 1), Span(span.source, at + 1, span.stop)
    return Copied(tuple(part for part in spans if part.nbytes))
