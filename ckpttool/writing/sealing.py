"""A checkpoint written again with its manifest inside: everything else stays as it is, byte for byte.

torch passes over records that it does not know; safetensors files have room for text beside their tensors.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable

from ckpttool.draft import Copied, Held
from ckpttool.errors import UsageError, WriteFailed, printable
from ckpttool.formats import describe
from ckpttool.formats.safetensors import HEADER_BYTES
from ckpttool.manifest import INSIDE_KEY, INSIDE_RECORD
from ckpttool.model import Checkpoint, Checksum, Extent, Span
from ckpttool.source import open_source
from ckpttool.writing.durable import replacing
from ckpttool.writing.restoring import Restored, restore
from ckpttool.writing.streams import Sink
from ckpttool.writing.torch_zip import ALIGNMENT, SERIALIZATION_ID

Progress = Callable[[int, int], None]


def write_inside(
    checkpoint: Checkpoint, manifest: str, destination: str | os.PathLike[str], progress: Progress | None = None
) -> None:
    """Write a torch archive or safetensors file with a manifest in it, replacing one that is there already.

    Whatever fails, what was there is as it was. Costs a copy. Raises ``UsageError`` for what has no room for one,
    ``WriteFailed``, ``Unreadable``.
    """
    if checkpoint.format == "torch-zip":
        restore(_records(checkpoint, manifest.encode()), destination, overwrite=True, progress=progress)
    elif checkpoint.format == "safetensors":
        _write_safetensors(checkpoint, manifest, destination)
    else:
        kind = checkpoint.format
        why = f"a {kind} checkpoint has no room for a manifest; without --inside it goes beside"
        raise UsageError(f"{printable(checkpoint.source)} – {why}")


def _records(checkpoint: Checkpoint, manifest: bytes) -> Restored:
    import zlib

    folder = str(checkpoint.metadata.get("prefix") or "archive")
    noted = checkpoint.metadata.get("storage_alignment")
    alignment = int(noted) if isinstance(noted, str) and noted.isdigit() else ALIGNMENT
    records = [
        (extent.name.removeprefix(f"{folder}/"), *_copied(checkpoint, extent))
        for extent in sorted(checkpoint.extents, key=lambda extent: extent.span.start)
    ]
    kept = [record for record in records if record[0] not in (INSIDE_RECORD, SERIALIZATION_ID)]
    own = (INSIDE_RECORD, Held(manifest), zlib.crc32(manifest))
    last = (SERIALIZATION_ID, Held(b""), 0)
    nbytes = sum(content.nbytes for _, content, _ in kept) + len(manifest)
    return Restored(folder, alignment, (*kept, own, last), nbytes, False)


def _copied(checkpoint: Checkpoint, extent: Extent) -> tuple[Copied, int]:
    if extent.method != "stored" or (extent.checksum is None and extent.span.nbytes):
        why = "is compressed" if extent.method != "stored" else "has no checksum"
        text = f"its record {printable(extent.name)} {why}; `ckpttool repair --repack --recrc` writes it as torch does"
        raise UsageError(f"{printable(checkpoint.source)} – {text}")
    crc = 0 if extent.checksum is None else extent.checksum.value
    return Copied((extent.span,), Checksum("crc32", crc)), crc


def _write_safetensors(checkpoint: Checkpoint, manifest: str, destination: str | os.PathLike[str]) -> None:
    header, body = header_of(checkpoint.source)
    metadata = header.get("__metadata__")
    mine = {**(metadata if isinstance(metadata, dict) else {}), INSIDE_KEY: manifest}
    rest = {key: value for key, value in header.items() if key != "__metadata__"}
    text = json.dumps({"__metadata__": mine, **rest}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_BYTES:
        why = f"with the manifest its header takes {len(text)} bytes, and readers take {HEADER_BYTES}"
        raise UsageError(f"{printable(checkpoint.source)} – {why}; without --inside it goes beside")
    with replacing(destination, expected=len(text) + body.nbytes) as out:
        with Sink(out) as sink:
            sink.write(struct.pack("<Q", len(text)) + text)
            sink.copy(body)
        out.flush()
        if describe(out.path).storages != _moved(describe(checkpoint.source), len(text) + 8, str(out.path)):
            raise WriteFailed(destination, "what was written does not read back as meant; nothing was replaced")


def _moved(checkpoint: Checkpoint, start: int, name: str) -> tuple[object, ...]:
    """The storages of a safetensors file whose tensors begin at another byte of another file."""
    from dataclasses import replace

    ahead = start - next(extent.span.stop for extent in checkpoint.extents if extent.name == "header")
    return tuple(
        replace(s, span=None if s.span is None else Span(name, s.span.start + ahead, s.span.stop + ahead))
        for s in checkpoint.storages
    )


def header_of(path: str) -> tuple[dict[str, object], Span]:
    """The header of a sound safetensors file, and where its tensors lie."""
    source = open_source(path)
    try:
        length = int.from_bytes(source.read(0, 8), "little")
        found = json.loads(source.read(8, length))
        return (found if isinstance(found, dict) else {}), Span(path, 8 + length, source.size)
    finally:
        source.close()
