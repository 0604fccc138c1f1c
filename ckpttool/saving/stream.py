"""What ``torch.save`` writes through: digests of what went by, and the same bytes read back while it goes on."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ckpttool.errors import WriteFailed
from ckpttool.units import count
from ckpttool.writing.flushing import start_flushing
from ckpttool.writing.temporary import Replacement

if TYPE_CHECKING:
    from typing_extensions import Buffer

AHEAD = 4 << 20
"""Bytes after which the disk is asked to begin and what went by is read back; a multiple of it for larger blocks."""

_CHUNK = 1 << 20


class ProvedStream:
    """An output that knows the XXH3-128 of each block as it was in memory, and compares the file's with it.

    Reading back goes on behind the writer, in ``pool`` where there is one, and from the system's cache: it proves that
    the system has what was meant; that the disk has it is what flushing asks for. ``refused`` is why a write
    ended, what the system refused or an interrupt, since ``torch.save`` turns that into an error of its own.
    """

    def __init__(self, file: Replacement, block: int, pool: ThreadPoolExecutor | None) -> None:
        import xxhash

        self._new = xxhash.xxh3_128
        self.refused: BaseException | None = None
        self.digests: list[str] = []
        self.position = 0
        self._file, self.block, self._pool = file, block, pool
        self._digest, self._room = self._new(), block
        self._stride = max(AHEAD, block)
        self._handed = 0  # blocks
        self._compared: list[Future[None]] = []

    def write(self, data: Buffer) -> int:
        """Append bytes."""
        if self.refused is not None:  # torch goes on to write the archive's end
            raise self.refused
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
            self.position += len(view)
            self._take(view)
            if self.position - self._handed * self.block >= self._stride:
                self._hand_over()
        except BaseException as error:
            self.refused = error
            raise
        return len(view)

    def flush(self) -> None:
        """What was written reaches the system."""
        self._file.flush()

    def finish(self) -> tuple[str, ...]:
        """The digest of each block, the last one short, once all that was written has been read back the same.

        Raises ``WriteFailed`` where a byte differs.
        """
        if self._room < self.block:
            self.digests.append(self._digest.hexdigest())
        self._hand_over()
        for compared in self._compared:
            compared.result()
        nbytes = os.fstat(self._file.fileno()).st_size
        if nbytes != self.position:
            raise self._wrong(f"{count(self.position)} bytes were written, and it has {count(nbytes)}")
        return tuple(self.digests)

    def _take(self, view: memoryview) -> None:
        start = 0
        while start < len(view):
            piece = view[start : start + self._room]
            self._digest.update(piece)
            start += len(piece)
            self._room -= len(piece)
            if not self._room:
                self.digests.append(self._digest.hexdigest())
                self._digest, self._room = self._new(), self.block

    def _hand_over(self) -> None:
        """Let the disk begin with what is complete, and a thread compare it."""
        self._file.flush()
        first, self._handed = self._handed, len(self.digests)
        start = first * self.block
        if first < self._handed:
            start_flushing(self._file.fileno(), start, self.position - start)
            if self._pool is None:
                self._compare(first, self.digests[first:])
            else:
                self._compared.append(self._pool.submit(self._compare, first, self.digests[first:]))

    def _compare(self, first: int, wanted: list[str]) -> None:
        buffer = memoryview(bytearray(min(self.block, _CHUNK)))
        for number, digest in enumerate(wanted, first):
            found, at = self._new(), number * self.block
            stop = at + self.block
            while at < stop and (got := self._read_back(at, buffer[: stop - at])):
                found.update(buffer[:got])
                at += got
            if found.hexdigest() != digest:
                where = f"bytes {count(number * self.block)} to {count(at)}"
                raise self._wrong(
                    f"{where} were written with digest {digest}, and read back with {found.hexdigest()}"
                )

    def _read_back(self, at: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], at)
        with self._file.path.open("rb", buffering=0) as again:
            again.seek(at)
            return again.readinto(buffer) or 0

    def _wrong(self, what: str) -> WriteFailed:
        return WriteFailed(self._file.target, f"{what}; nothing was replaced, check the disk")
