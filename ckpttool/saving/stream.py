"""What ``torch.save`` writes through: digests of what goes by, and the same bytes read back at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ckpttool.errors import WriteFailed
from ckpttool.saving.seals import PassingSeals
from ckpttool.units import count
from ckpttool.writing.flushing import start_flushing
from ckpttool.writing.temporary import Replacement

if TYPE_CHECKING:
    from typing_extensions import Buffer

AHEAD = 4 << 20
"""Bytes after which the disk is asked to begin."""

PIECE = 1 << 18
"""Bytes that are digested and written in one go: from memory once, then from the processor's cache."""


class ProvedStream:
    """An output that knows the XXH3-128 of each block as it was in memory, and compares the file's with it.

    Each piece is read back as soon as it has been written, from the system's cache and while the processor's still has
    it: this proves that the system has what was meant; that the disk has it is what flushing asks for. ``refused``
    is why a write ended, what the system refused or an interrupt: ``torch.save`` makes errors of its own of those.
    """

    def __init__(self, file: Replacement, block: int, seals: PassingSeals | None = None) -> None:
        import xxhash

        self._new = xxhash.xxh3_128
        self.refused: BaseException | None = None
        self.digests: list[str] = []
        self.position = 0
        self._file, self.block, self._seals = file, block, seals
        self._meant, self._found, self._room = self._new(), self._new(), block
        self._buffer = memoryview(bytearray(PIECE))
        self._seen = 0  # bytes that were read back
        self._begun = 0  # bytes that the disk was asked to take

    def write(self, data: Buffer) -> int:
        """Append bytes."""
        if self.refused is not None:  # torch goes on to write the archive's end
            raise self.refused
        view = memoryview(data).cast("B")
        try:
            self._pass(view)
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
            self._look_back()
            self._end_block()
        nbytes = os.fstat(self._file.fileno()).st_size
        if nbytes != self.position:
            raise self._wrong(f"{count(self.position)} bytes were written, and it has {count(nbytes)}")
        return tuple(self.digests)

    def _pass(self, view: memoryview) -> None:
        """Into the digests and the file, piece by piece."""
        tensor = self._seals.passing(view) if self._seals is not None else None
        start = 0
        while start < len(view):
            piece = view[start : start + min(self._room, PIECE)]
            self._meant.update(piece)
            if tensor is not None:
                tensor.update(piece)
            self._file.write(piece)
            start += len(piece)
            self.position += len(piece)
            self._room -= len(piece)
            if self.position - self._seen >= PIECE or not self._room:
                self._look_back()
            if not self._room:
                self._end_block()

    def _look_back(self) -> None:
        """Digest what the system has of what was written since the last look."""
        self._file.flush()
        while self._seen < self.position:
            got = self._read_back(self._seen, self._buffer[: self.position - self._seen])
            if not got:
                break
            self._found.update(self._buffer[:got])
            self._seen += got

    def _end_block(self) -> None:
        """Compare what the system has with what was meant, and let the disk begin."""
        meant, found = self._meant.hexdigest(), self._found.hexdigest()
        if found != meant:
            where = f"bytes {count(len(self.digests) * self.block)} to {count(self._seen)}"
            raise self._wrong(f"{where} were written with digest {meant}, and read back with {found}")
        self.digests.append(meant)
        self._meant, self._found, self._room = self._new(), self._new(), self.block
        if self.position - self._begun >= AHEAD:
            start_flushing(self._file.fileno(), self._begun, self.position - self._begun)
            self._begun = self.position

    def _read_back(self, at: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], at)
        with self._file.path.open("rb", buffering=0) as again:
            again.seek(at)
            return again.readinto(buffer) or 0

    def _wrong(self, what: str) -> WriteFailed:
        return WriteFailed(self._file.target, f"{what}; nothing was replaced, check the disk")
