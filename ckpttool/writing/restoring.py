"""An archive of torch's written again from its own records: the bytes that ``torch.save`` wrote, framing included.

The tree is not emitted anew but copied, so the result is the file as it was before the damage, bit for bit.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping

from ckpttool.draft import Content, Copied, Held
from ckpttool.errors import WriteFailed, printable
from ckpttool.formats import describe
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_finds import NOTES
from ckpttool.formats.zip_layout import chain
from ckpttool.formats.zip_salvage import Salvaged
from ckpttool.frozen import dataclass
from ckpttool.model import Checksum, Span
from ckpttool.writing.apply import Written
from ckpttool.writing.durable import replacing
from ckpttool.writing.streams import Sink
from ckpttool.writing.torch_zip import SERIALIZATION_ID, Archive


@dataclass(frozen=True, slots=True)
class Restored:
    """Every record of an archive in order: its name without the folder, its content, its checksum.

    ``identified`` says that the archive's own checksum of checksums agrees with all of them.
    """

    folder: str
    alignment: int
    records: tuple[tuple[str, Content, int], ...]
    nbytes: int
    identified: bool


def restored(
    found: Salvaged, computed: Mapping[str, int], healed: Mapping[str, tuple[Content, int]]
) -> Restored | None:
    """The whole archive, if every record of it is proved; else None.

    ``computed`` are the checksums of the records as they are, by name; ``healed`` contents that stand in for damaged
    ones, with their checksums. A record whose own checksum is gone is proved by the checksum of checksums.
    """
    home = f"{found.folder}/"
    if not found.aligned or not found.folder or not all(name.startswith(home) for name in found.order):
        return None
    folded = {name.lower() for name in found.order}
    if home + "version" not in found.order or len(folded) < len(found.order):
        return None
    by_name = {record.name: record for record in found.records}
    records: list[tuple[str, Content, int]] = []
    doubtful = False
    for full in found.order:
        name = full.removeprefix(home)
        if name == SERIALIZATION_ID:
            continue
        one = _content(found, name, by_name.get(full), computed.get(full), healed.get(full))
        if one is None:
            return None
        records.append((name, one[0], one[1]))
        doubtful = doubtful or not one[2]
    said = _said(found, by_name.get(home + SERIALIZATION_ID))
    agrees = said is not None and int(said[20:]) == chain([crc for _, content, crc in records if content.nbytes])
    id_crc = computed.get(home + SERIALIZATION_ID)
    stands = id_crc is not None and id_crc in found.checksums.get(home + SERIALIZATION_ID, ())
    if not agrees and (doubtful or (stands and said is not None)):
        return None
    if home + SERIALIZATION_ID in found.order:
        records.append(_identity(found, said if agrees else None, by_name, computed))
    return Restored(found.folder, found.aligned, tuple(records), sum(c.nbytes for _, c, _ in records), agrees)


def _content(
    found: Salvaged, name: str, record: Record | None, computed: int | None, healed: tuple[Content, int] | None
) -> tuple[Content, int, bool] | None:
    """A record's content, its checksum, and whether that is proved; None where there is no whole content."""
    if healed is not None:
        return healed[0], healed[1], True
    note = str(found.aligned).encode() if name == ".storage_alignment" else NOTES.get(name)
    if record is not None and computed is not None and record.method == 0:
        span = Span(found.checkpoint.source, record.data, record.stop)
        copied = Copied((span,), Checksum("crc32", computed))
        if note is not None and computed not in _SAID:
            return None if computed in found.checksums.get(record.name, ()) else (Held(note), zlib.crc32(note), True)
        if computed in found.checksums.get(record.name, ()) or not record.usize:
            return copied, computed, True
        if not found.checksums.get(record.name) and note is None:
            return copied, computed, False
    if note is None:
        return None
    known = found.checksums.get(f"{found.folder}/{name}", ()) if record is not None else ()
    return Held(note), zlib.crc32(note), not known or zlib.crc32(note) in known


_SAID = frozenset(
    zlib.crc32(text.encode())
    for text in (*(f"{n}\n" for n in range(1, 11)), "1", "little", "big", *(str(1 << n) for n in range(16)))
)
"""Checksums of what torch's notes may say: a version, an alignment, a byte order."""


def _said(found: Salvaged, record: Record | None) -> str | None:
    """The serialization id as it stands in the file."""
    from ckpttool.source import open_source

    if record is None or record.usize != 40:
        return None
    source = open_source(found.checkpoint.source)
    try:
        text = source.read(record.data, 40)
    finally:
        source.close()
    return text.decode() if len(text) == 40 and text.isdigit() else None


def _identity(
    found: Salvaged, said: str | None, by_name: Mapping[str, Record], computed: Mapping[str, int]
) -> tuple[str, Content, int]:
    """The serialization id: as it is where it agrees, or proves itself; else it is computed when written."""
    full = f"{found.folder}/{SERIALIZATION_ID}"
    record = by_name.get(full)
    crc = computed.get(full)
    if record is not None and crc is not None and crc in found.checksums.get(full, ()):
        span = Span(found.checkpoint.source, record.data, record.stop)
        return SERIALIZATION_ID, Copied((span,), Checksum("crc32", crc)), crc
    if said is not None and crc is not None and not found.checksums.get(full):
        return SERIALIZATION_ID, Held(said.encode()), crc
    return SERIALIZATION_ID, Held(b""), 0


def restore(
    what: Restored,
    destination: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write an archive from its records; whatever fails, what was there is as it was. Costs a copy.

    Raises ``WriteFailed``, also where what was written does not read back as sound, ``Unreadable``, ``OSError``.
    """
    where = os.fspath(destination)
    done = 0

    def step(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(min(done, what.nbytes), what.nbytes)

    with replacing(destination, overwrite=overwrite, expected=what.nbytes) as out:
        with Sink(out) as sink:
            archive = Archive(sink, what.folder, what.alignment, step)
            for name, content, crc in what.records:
                if name == SERIALIZATION_ID and not content.nbytes:
                    archive.add(name, archive.serialization_id())
                else:
                    archive.copy(name, content, crc)
            archive.finish()
            position = sink.position
        out.flush()
        damage = [one for one in describe(out.path, audit=True).damage if one.rule in _BROKEN]
        if damage:
            why = f"what was written does not read back as sound: {printable(damage[0].message)}"
            raise WriteFailed(where, f"{why}; nothing was replaced")
    return Written(where, "torch", (where,), position, what.nbytes, 0, 0, ())


_BROKEN = frozenset(
    "truncated header-mismatch descriptor-mismatch directory-damaged serialization-id not-canonical".split()
)
