"""The archive that ``torch.save`` of torch 2.13 writes, byte for byte, streamed: storages are copied, not decoded.

A file of torch's that is written again unchanged comes out as the same bytes wherever its pickle does (see
``formats.pickle_emitter``); older files gain the records that torch writes today. Any torch from 1.6 on reads
the result: the container is theirs, records that it does not know are passed over, and a tree asks for what its
source asked for. TorchScript archives are refused: their code belongs to their tree.
Source: ``formats.zip_layout``, torch 2.13 ``torch/serialization.py`` ``_save``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckpttool.draft import Content, Copied, Draft
from ckpttool.errors import WriteFailed, printable
from ckpttool.formats.name_hash import name_hash
from ckpttool.formats.pickle_emitter import Emitter
from ckpttool.formats.torch_zip import NAME
from ckpttool.formats.zip_archive import Record
from ckpttool.formats.zip_layout import WITH_DESCRIPTOR, central_entry, chain, descriptor, end_records, local_header
from ckpttool.formats.zip_records import MIGRATIONS, SMALL
from ckpttool.frozen import dataclass
from ckpttool.manifest import INSIDE_RECORD
from ckpttool.model import Json
from ckpttool.stamps import note_of
from ckpttool.writing.arrays import changed_arrays
from ckpttool.writing.losses import Loss
from ckpttool.writing.order import Order, order_of
from ckpttool.writing.streams import Sink

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".th")
ALIGNMENT = 64
SERIALIZATION_ID = ".data/serialization_id"
SCRIPT = "torchscript"

__all__ = ["NAME", "SUFFIXES", "losses", "write"]


def write(
    draft: Draft, sink: Sink, *, folder: str | None = None, progress: Callable[[int], None] | None = None
) -> None:
    """Write a draft as ``torch.save`` would. Deterministic; memory: the pickle, and the largest computed tensor.

    ``folder`` is the archive's top folder: by default that of the source where it is such an archive, else the
    output's name without its suffix, as torch has it. Alignment and the storages' keys are the source's where torch
    could have written them. Recorded checksums are carried over with the bytes they are of. ``progress`` is
    called with bytes written. Raises ``WriteFailed`` for what no such file can hold, ``Unreadable``, ``OSError``.
    """
    refuse_code(draft)
    kept = keeps_keys(draft)
    emitter = Emitter(draft.checkpoint, arrays=changed_arrays(draft), renumber=not kept)
    pickled = emitter.run()
    order = order_of(draft, emitter.mentioned)
    alignment = _alignment(draft)
    archive = Archive(sink, folder or _folder(draft, sink), alignment, progress)
    for name, data in _head(pickled, alignment, order.big):
        archive.add(name, data)
    for index, number in emitter.mentioned.items():
        key = draft.checkpoint.storages[index].key if kept else str(number)
        archive.stream(f"data/{key}", draft.contents[index], order, index)
    archive.add("version", b"3\n")
    noted = note_of(draft.checkpoint.metadata)
    if noted:
        archive.add(MIGRATIONS, noted.encode())
    archive.close()


def losses(draft: Draft) -> tuple[Loss, ...]:
    """What such a file does not carry: records that ``torch.save`` does not write, the metadata of a header."""
    found = [Loss(name, "record", "torch.save writes no such record") for name in _strangers(draft)]
    metadata = draft.checkpoint.metadata.get("metadata")
    if isinstance(metadata, dict):
        found += [Loss(f"__metadata__.{key}", "metadata", "the format has no place for it") for key in metadata]
    return tuple(found)


def refuse_code(draft: Draft) -> None:
    """Raise ``WriteFailed`` for a tree that only its own archive's code can build."""
    if draft.checkpoint.format == SCRIPT:
        why = "a TorchScript archive: its tree needs the code beside it, and code is not written here; "
        why += "convert its tensors to safetensors, or save the module's state_dict with torch"
        raise WriteFailed(draft.checkpoint.source, why)


def keeps_keys(draft: Draft) -> bool:
    """Whether the storages' keys are digits, each once, as torch names records; else they are numbered anew."""
    keys = [storage.key for storage in draft.checkpoint.storages if not storage.key.startswith("ndarray ")]
    return all(key.isascii() and key.isdecimal() for key in keys) and len(set(keys)) == len(keys)


def _head(pickled: bytes, alignment: int, big: bool) -> Iterator[tuple[str, bytes]]:
    yield "data.pkl", pickled
    yield ".format_version", b"1"
    yield ".storage_alignment", str(alignment).encode()
    yield "byteorder", b"big" if big else b"little"


def _folder(draft: Draft, sink: Sink) -> str:
    prefix = draft.checkpoint.metadata.get("prefix")
    if draft.checkpoint.format != NAME or not isinstance(prefix, str):
        return sink.stem
    usable = prefix and prefix.isprintable() and not set(prefix) & set("/\\:") and prefix not in (".", "..")
    return prefix if usable else sink.stem


def _alignment(draft: Draft) -> int:
    """The alignment that the source's archive records where it is a possible one."""
    text: Json = draft.checkpoint.metadata.get("storage_alignment")
    possible = isinstance(text, str) and text.isascii() and text.isdigit() and 0 < int(text) <= 1 << 15
    return int(str(text)) if possible and draft.checkpoint.format == NAME else ALIGNMENT


def _strangers(draft: Draft) -> list[str]:
    """Records of the source's archive that are neither its tree nor storages nor torch's own notes."""
    checkpoint = draft.checkpoint
    prefix = checkpoint.metadata.get("prefix")
    if checkpoint.format != NAME or not isinstance(prefix, str):
        return []
    names = [extent.name.removeprefix(f"{prefix}/") for extent in checkpoint.extents]
    ours = (*SMALL, MIGRATIONS, INSIDE_RECORD)
    return [
        printable(name)
        for name in names
        if name.lower() != "data.pkl" and name not in ours and not name.startswith("data/")
    ]


# --- the archive -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Written:
    """What the directory and the serialization id say of a record."""

    name: str
    record: Record


class Archive:
    """An archive as it is written: record by record, then the directory."""

    def __init__(self, sink: Sink, folder: str, alignment: int, progress: Callable[[int], None] | None) -> None:
        self._sink = sink
        self._start = sink.position
        self._folder = folder
        self._alignment = alignment
        self._progress = progress
        self._written: list[_Written] = []
        self._held = b""  # what ends a record goes out with what begins the next one

    def add(self, name: str, data: bytes) -> None:
        """A record of bytes at hand."""
        record = self._begin(name, len(data))
        with self._sink.checksummed() as running:
            self._sink.write(data)
        self._end(name, record, running.value)

    def stream(self, name: str, content: Content, order: Order, index: int) -> None:
        """A storage's record; its checksum is computed only where none is recorded of these very bytes."""
        swap = order.width(index)
        record = self._begin(name, content.nbytes)
        known = _recorded(content) if not swap else None
        if known is not None:
            self._sink.put(content)
        else:
            with self._sink.checksummed() as running:
                self._sink.put(content, swap=swap, swapped=order.big)
            known = running.value
        self._end(name, record, known)

    def copy(self, name: str, content: Content, crc: int) -> None:
        """A record whose checksum is known; raises ``WriteFailed`` where what had to be looked at has another one."""
        record = self._begin(name, content.nbytes)
        if _recorded(content) == crc:
            self._sink.put(content)
        else:
            with self._sink.checksummed() as running:
                self._sink.put(content)
            if running.value != crc:
                raise WriteFailed(name, f"CRC-32 {running.value:08x} was written where {crc:08x} was meant")
        self._end(name, record, crc)

    def serialization_id(self) -> bytes:
        """What torch writes last: digests of the names and of the checksums so far."""
        hashed = name_hash([written.name for written in self._written])
        chained = chain([w.record.crc for w in self._written if w.record.usize])
        return f"{hashed:020d}{chained:020d}".encode()

    def close(self) -> None:
        """The serialization id, the directory and its end."""
        self.add(SERIALIZATION_ID, self.serialization_id())
        self.finish()

    def finish(self) -> None:
        """The directory and its end."""
        start = self._sink.position + len(self._held) - self._start
        directory = b"".join([central_entry(written.record) for written in self._written])
        self._sink.write(self._held + directory)
        self._held = b""
        self._sink.write(end_records(len(self._written), len(directory), start))

    def _begin(self, name: str, nbytes: int) -> Record:
        raw = f"{self._folder}/{name}".encode()
        header = self._sink.position + len(self._held) - self._start
        record = Record(f"{self._folder}/{name}", raw, header, 0, nbytes, nbytes, 0, 0, WITH_DESCRIPTOR)
        local = local_header(record, self._alignment)
        self._sink.write(self._held + local)
        return record._replace(data=header + len(local))

    def _end(self, name: str, record: Record, crc: int) -> None:
        have = self._sink.position - self._start - record.data
        if have != record.usize:
            raise WriteFailed(record.name, f"{have} bytes came where {record.usize} were announced")
        record = record._replace(crc=crc)
        self._held = descriptor(record)
        self._written.append(_Written(name, record))
        if self._progress is not None:
            self._progress(record.usize)


def _recorded(content: Content) -> int | None:
    """The CRC-32 that is recorded of a copied content."""
    if not isinstance(content, Copied) or content.checksum is None or content.inflates_to is not None:
        return None
    return content.checksum.value if content.checksum.algorithm == "crc32" else None
