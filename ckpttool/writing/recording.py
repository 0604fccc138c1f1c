"""An output that remembers what went where, so that it can be read back and compared before it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ckpttool.errors import WriteFailed
from ckpttool.frozen import dataclass
from ckpttool.measure.crc import crc32
from ckpttool.model import Span
from ckpttool.source import LocalFile, Source, open_source
from ckpttool.units import count
from ckpttool.writing.flushing import start_flushing
from ckpttool.writing.streams import Sink

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK = 1 << 20
"""Bytes compared at a time."""

AHEAD = 32 << 20
"""Bytes after which the disk is asked to begin: enough that small files are left alone."""


@dataclass(slots=True)
class Run:
    """Bytes from ``start`` on that went through this process, and their CRC-32 as they went."""

    start: int
    nbytes: int = 0
    crc: int = 0


class Recorder(Sink):
    """A sink that keeps the checksums of what is written, and the origins of what is copied.

    ``progress`` is called with the number of bytes of each step.
    """

    def __init__(self, file: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        super().__init__(file)
        self.runs: list[Run] = []
        self.copies: list[tuple[int, Span]] = []
        self._progress = progress
        self._is_copying = False
        self._flushed = 0

    def write(self, data: Buffer) -> None:
        """Append bytes, and keep their checksum."""
        view = memoryview(data).cast("B")
        if not self._is_copying:
            run = self.runs[-1] if self.runs else None
            if run is None or run.start + run.nbytes != self.position:
                run = Run(self.position)
                self.runs.append(run)
            run.crc = crc32(view, run.crc)
            run.nbytes += len(view)
        super().write(view)
        self._flush_ahead()
        if self._progress is not None and not self._is_copying:
            self._progress(len(view))

    def copy(self, span: Span) -> None:
        """Append a range of a file, and keep where it came from."""
        start, self._is_copying = self.position, True
        try:
            super().copy(span)
        finally:
            self._is_copying = False
        if span.nbytes:
            self.copies.append((start, span))
        self._flush_ahead()
        if self._progress is not None:
            self._progress(span.nbytes)

    def _flush_ahead(self) -> None:
        """Let the disk begin with what is complete."""
        if self.position - self._flushed >= AHEAD:
            self.file.flush()
            start_flushing(self.file.fileno(), self._flushed, self.position - self._flushed)
            self._flushed = self.position

    @property
    def written(self) -> int:
        """Bytes that went through this process."""
        return sum(run.nbytes for run in self.runs)

    @property
    def copied(self) -> int:
        """Bytes that were copied from files."""
        return sum(span.nbytes for _, span in self.copies)


def read_back(path: Path, runs: list[Run], where: str) -> None:
    """Read what was written and compare checksums; raises ``WriteFailed`` where a byte differs."""
    source = LocalFile(path)
    try:
        buffer = memoryview(bytearray(BLOCK))
        for run in runs:
            found = _checksum(source, run, buffer)
            if found != run.crc:
                what = f"bytes {count(run.start)} to {count(run.start + run.nbytes)} were written"
                raise _mismatch(where, f"{what} with CRC {run.crc:#010x}, and read back with {found:#010x}")
    finally:
        source.close()


def _checksum(source: LocalFile, run: Run, buffer: memoryview) -> int:
    found, at, stop = 0, run.start, run.start + run.nbytes
    while at < stop:
        got = source.readinto(at, buffer[: min(BLOCK, stop - at)])
        if not got:
            break
        found = crc32(buffer[:got], found)
        at += got
    return found


def compare_copies(
    path: Path,
    copies: list[tuple[int, Span]],
    where: str,
    recorded: Mapping[Span, int],
    progress: Callable[[int], None],
) -> None:
    """Compare copied ranges with their origins, and with the CRC-32 that their files have recorded of them.

    Raises ``WriteFailed`` where a byte differs. Reads both sides once.
    """
    output = LocalFile(path)
    sources: dict[str, Source] = {}
    try:
        for start, span in copies:
            if span.source not in sources:
                sources[span.source] = open_source(span.source)
            found = _same(output, start, sources[span.source], span, where, progress)
            if recorded.get(span, found) != found:
                said = f"recorded CRC {recorded[span]:#010x}, computed {found:#010x}"
                why = f"bytes {count(span.start)} to {count(span.stop)} are damaged: {said}"
                raise WriteFailed(span.source, f"{why}; nothing was replaced, see 'ckpttool verify'")
    finally:
        output.close()
        for source in sources.values():
            source.close()


def _same(
    output: LocalFile, start: int, source: Source, span: Span, where: str, progress: Callable[[int], None]
) -> int:
    """The CRC-32 of a range that is the same on both sides."""
    found = 0
    for at in range(0, span.nbytes, BLOCK):
        size = min(BLOCK, span.nbytes - at)
        # As bytes: they are compared by memcmp, views element by element.
        ours, theirs = output.read(start + at, size), source.read(span.start + at, size)
        if len(ours) < size or ours != theirs:
            what = f"the copy at byte {count(start + at)} differs from byte {count(span.start + at)}"
            raise _mismatch(where, f"{what} of {span.source}")
        found = crc32(ours, found)
        progress(size)
    return found


def _mismatch(where: str, what: str) -> WriteFailed:
    return WriteFailed(where, f"{what}; nothing was replaced, check the disk")
