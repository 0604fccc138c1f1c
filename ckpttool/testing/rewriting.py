"""Checkpoints written again in memory, and what is compared of them."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

from ckpttool.draft import Draft, draft_of
from ckpttool.formats import describe_source
from ckpttool.model import Checkpoint
from ckpttool.source import Memory, Source
from ckpttool.testing.canonical import canonical
from ckpttool.writing.streams import Sink, chunks


def written(writer: ModuleType, draft: Draft, *sources: Source, **how: Any) -> bytes:
    """The file that a writer makes of a draft."""
    file = io.BytesIO()
    with Sink(file, sources) as sink:
        writer.write(draft, sink, **how)
        assert sink.position == len(file.getvalue())
    return file.getvalue()


def rewritten(writer: ModuleType, data: bytes, **how: Any) -> bytes:
    """A file described and written again."""
    source = Memory(data)
    return written(writer, draft_of(describe_source(source)), source, **how)


def says(data: bytes) -> tuple[Any, list[bytes]]:
    """What a file's tree says, and the little-endian bytes of the storages that it looks into."""
    source = Memory(data)
    checkpoint = describe_source(source)
    return canonical(checkpoint, lambda span: source.read(span.start, span.nbytes)), contents(checkpoint, source)


def contents(checkpoint: Checkpoint, *sources: Source) -> list[bytes]:
    """The bytes of each storage in order, big-endian ones turned."""
    found = []
    for storage, content in zip(checkpoint.storages, draft_of(checkpoint).contents, strict=True):
        data = b"".join(chunks(content, sources))
        width = storage.dtype.itemsize // (2 if storage.dtype.kind == "complex" else 1)
        if storage.swapped and width > 1:
            data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
        found.append(data)
    return found
