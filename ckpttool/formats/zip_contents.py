"""An archive whose payloads are located: its records by name, and their content."""

from __future__ import annotations

import zlib

from ckpttool.formats.zip_archive import Directory, Record
from ckpttool.frozen import dataclass
from ckpttool.source import Source


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's records with their payloads located, and how names are looked up in it."""

    source: Source
    records: tuple[Record, ...]
    prefix: str
    torch_writer: bool
    alignment: int
    directory: Directory | None

    def find(self, name: str) -> Record | None:
        """The record ``<prefix>/<name>``; case is ignored where no record matches exactly, as torch does."""
        wanted = f"{self.prefix}{name}"
        exact = next((r for r in self.records if r.name == wanted), None)
        return exact or next((r for r in self.records if r.name.lower() == wanted.lower()), None)

    def content(self, record: Record, most: int) -> bytes:
        """Up to ``most`` bytes of a record, inflated where it is deflated."""
        raw = self.source.read(record.data, min(record.csize, most))
        return raw if record.method == 0 else inflate(raw, most)[0]


def inflate(raw: bytes, most: int, ratio: int = 200) -> tuple[bytes, str]:
    """Inflate at most ``most`` bytes; the second value says why it stopped early, if it did."""
    bound = min(most, len(raw) * ratio + (1 << 20))
    engine = zlib.decompressobj(-15)
    try:
        data = engine.decompress(raw, bound)
    except zlib.error as error:
        return b"", f"cannot be inflated: {error}"
    if engine.unconsumed_tail or not engine.eof:
        return data, f"{len(raw)} bytes inflate to more than {bound}" if len(
            data
        ) >= bound else "the deflated data end early"
    return data, ""
