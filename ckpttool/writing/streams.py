"""Bytes on their way into a file: copied by the kernel where nobody needs to see them, else in blocks.

Blocks cost a pass through memory; what is only copied costs the disk alone, and nothing where the file system
shares extents between files.
"""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ckpttool.draft import Content, Copied, Held, Made
from ckpttool.errors import WriteFailed
from ckpttool.measure.crc import crc32
from ckpttool.model import Span
from ckpttool.source import Source, open_source
from ckpttool.writing.descriptors import copied, descriptor_of

Data: TypeAlias = "bytes | bytearray | memoryview"

BLOCK = 4 << 20
"""Bytes that are in memory at a time; a multiple of every element's width."""

SMALL = 1 << 15
"""Bytes below which a pass through memory costs less than asking the kernel, which takes what was held back first."""


class Sink:
    """An output that is written from front to back. ``position`` counts bytes from where it began.

    ``file`` is any binary file; one of the operating system's gets its copies by the kernel. ``sources`` are
    found by name in place of files that would be opened. Close it, or use it in a ``with`` block: what it has
    opened to read from is let go, ``file`` stays open. Raises ``WriteFailed`` where a source ends early and
    ``Unreadable`` where there is none; failures of the output itself are ``OSError``.
    """

    def __init__(self, file: BinaryIO, sources: Iterable[Source] = ()) -> None:
        self.file = file
        self.position = 0
        self._base = file.tell() if file.seekable() else 0
        self._output = descriptor_of(file)
        self._given = {source.name: source for source in sources}
        self._opened: dict[str, Source] = {}
        self._inputs: dict[str, int | None] = {}
        self._crc: int | None = None

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened for reading."""
        for descriptor in self._inputs.values():
            if descriptor is not None:
                os.close(descriptor)
        for source in self._opened.values():
            source.close()
        self._inputs, self._opened = {}, {}

    @property
    def stem(self) -> str:
        """What torch would call the file: its name up to the last dot; ``archive`` where it has none in ASCII."""
        target = getattr(self.file, "target", None) or getattr(self.file, "name", None)
        name = Path(os.fspath(target)).name if isinstance(target, (str, os.PathLike)) else ""
        stem = name.rpartition(".")[0] if "." in name else name
        return stem if stem and stem.isascii() else "archive"

    # --- writing -----------------------------------------------------------------------------------------

    def write(self, data: Data) -> None:
        """Append bytes."""
        view = memoryview(data).cast("B")
        if self._crc is not None:
            self._crc = crc32(view, self._crc)
        self.file.write(view)
        self.position += len(view)

    def copy(self, span: Span) -> None:
        """Append a range of a file, without looking at it unless a checksum is running."""
        seen = self._crc is not None or self._output is None
        if seen or span.nbytes < SMALL or not self._by_kernel(span):
            for block in self._blocks(span):
                self.write(block)

    def put(self, content: Content, *, swap: int = 0, swapped: bool = False) -> None:
        """Append a content. ``swap`` is the width of elements whose byte order is turned, 0 for none.

        ``swapped`` says which order a computed content should have: big-endian.
        """
        if isinstance(content, Copied) and content.inflates_to is None and not swap:
            for span in content.spans:
                self.copy(span)
            return
        for block in self._content_blocks(content, swap=swap, swapped=swapped):
            self.write(block)

    @contextlib.contextmanager
    def checksummed(self) -> Iterator[Running]:
        """Within this block the CRC-32 of what is written is kept."""
        self._crc = 0
        running = Running()
        try:
            yield running
        finally:
            running.value, self._crc = self._crc, None

    # --- by the kernel -----------------------------------------------------------------------------------

    def _by_kernel(self, span: Span) -> bool:
        """Whether the kernel has copied the whole range; else nothing of it stands."""
        source = self._input(span.source)
        if source is None or self._output is None or not span.nbytes:
            return not span.nbytes
        self.file.flush()
        start = self._base + self.position
        done = copied(source, self._output, span.start, start, span.nbytes)
        if done is None:
            return False
        self.position += done
        self.file.seek(self._base + self.position)
        if done < span.nbytes:
            raise _ended_early(span, done)
        return True

    def _input(self, name: str) -> int | None:
        if name in self._given or "://" in name:
            return None
        if name not in self._inputs:
            try:
                self._inputs[name] = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except OSError:
                self._inputs[name] = None  # the reader says why
        return self._inputs[name]

    # --- in blocks ---------------------------------------------------------------------------------------

    def _source(self, name: str) -> Source:
        if name in self._given:
            return self._given[name]
        if name not in self._opened:
            self._opened[name] = open_source(name)
        return self._opened[name]

    def _blocks(self, span: Span) -> Iterator[memoryview]:
        source = self._source(span.source)
        for start in range(span.start, span.stop, BLOCK):
            wanted = min(BLOCK, span.stop - start)
            block = memoryview(source.read(start, wanted))
            yield block
            if len(block) < wanted:
                raise _ended_early(span, start + len(block) - span.start)

    def _content_blocks(self, content: Content, *, swap: int, swapped: bool) -> Iterator[memoryview]:
        blocks: Iterator[memoryview]
        if isinstance(content, Copied):
            blocks = (block for span in content.spans for block in self._blocks(span))
            if content.inflates_to is not None:
                blocks = _inflated(blocks, content)
        elif isinstance(content, Held):
            blocks = iter((memoryview(content.data),))
        else:
            yield _evaluated(content, swapped=swapped)
            return
        yield from _turned(blocks, swap) if swap else blocks


class Running:
    """A checksum; ``value`` is known once its block has ended."""

    value: int = 0


def chunks(content: Content, sources: Iterable[Source] = ()) -> Iterator[memoryview]:
    """A content's bytes in order, inflated where they lie deflated, in blocks of at most a few MiB.

    What is computed comes whole and little-endian. Raises ``WriteFailed`` where a source ends early.
    """
    with Sink(io.BytesIO(), sources) as sink:
        yield from sink._content_blocks(content, swap=0, swapped=False)


def _evaluated(content: Made, *, swapped: bool) -> memoryview:
    from ckpttool.writing.evaluate import evaluate

    return memoryview(evaluate(content, swapped)).cast("B")


def _inflated(blocks: Iterator[memoryview], content: Copied) -> Iterator[memoryview]:
    """Deflated blocks as they inflate, and never past the declared size."""
    size = content.inflates_to or 0
    inflater, left = zlib.decompressobj(-zlib.MAX_WBITS), size
    for block in chain(blocks, (memoryview(b""),)):
        raw: Data = block
        while left and not inflater.eof:
            try:
                out = inflater.decompress(raw, min(left, BLOCK))
            except zlib.error as error:
                raise WriteFailed(content.spans[0].source, f"deflated data is malformed: {error}") from error
            raw = inflater.unconsumed_tail
            if not out and not raw:
                break
            left -= len(out)
            yield memoryview(out)
    if left:
        raise WriteFailed(content.spans[0].source, f"inflates to {size - left} bytes, and {size} are declared")


def _turned(blocks: Iterator[memoryview], width: int) -> Iterator[memoryview]:
    """The same elements in the other byte order, wherever the blocks cut them."""
    import numpy as np

    rest = b""
    for block in blocks:
        data = rest + bytes(block) if rest else block
        whole = len(data) - len(data) % width
        if whole:
            yield memoryview(np.frombuffer(data[:whole], f"u{width}").byteswap().tobytes())
        rest = bytes(data[whole:])
    if rest:
        yield memoryview(rest)


def _ended_early(span: Span, have: int) -> WriteFailed:
    return WriteFailed(span.source, f"ended after {have} of the {span.nbytes} bytes at {span.start}")
