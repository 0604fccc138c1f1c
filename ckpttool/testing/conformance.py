"""What every reader of a format has to keep, as a base class: subclass it, and pytest finds the tests.

class TestMyFormat(FormatConformance):
    module = my_format

    def good_files(self):
        return {"small": build_one()}
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ckpttool.limits import DEFAULT
from ckpttool.model import Checkpoint
from ckpttool.source import Memory, open_source
from ckpttool.testing.faults.spans import flip
from ckpttool.testing.samples import FILES

if TYPE_CHECKING:
    from ckpttool.formats import Format

CUTS = 120
"""Places at which a file is cut and bits are flipped, spread evenly over it and dense at both ends."""

SEARCHED = 1 << 20
"""Bytes of tensors that may be read on the way to a directory at the end of the file."""

NOTHING = (b"", b"\0", b"PK", b"\x80", b"{}", b"\0" * 4096, b"<html></html>", b"version https://git-lfs\n")
"""What is a file of no format."""


class Watched(Memory):
    """Bytes in memory that remember which ranges were read. Windows do not count: large ones are mapped."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.seen: list[tuple[int, int]] = []

    def read(self, start: int, nbytes: int) -> bytes:
        self.seen.append((start, start + nbytes))
        return super().read(start, nbytes)

    def readinto(self, start: int, buffer: memoryview) -> int:
        self.seen.append((start, start + len(buffer)))
        return super().readinto(start, buffer)

    def read_within(self, start: int, stop: int) -> int:
        """How many bytes of a range were read, repetitions counted."""
        return sum(max(0, min(stop, b) - max(start, a)) for a, b in self.seen)


class FormatConformance:
    """The suite. Set ``module`` and define ``good_files``; the rest has sensible defaults."""

    module: Format

    def good_files(self) -> Mapping[str, bytes]:
        """Sound files of the format by a name for messages; small, since each is read hundreds of times."""
        raise TypeError(f"{type(self).__name__} does not say which files are sound")

    def foreign_files(self) -> Mapping[str, bytes]:
        """Files of other formats, which this one must not claim: the samples that it is not the reader of."""
        return {name: make() for name, make in FILES.items() if name != self.module.NAME}

    def big_payload(self) -> bytes | None:
        """A sound file of which tensors take several megabytes; None leaves the test of reading out."""
        return None

    def read(self, data: bytes) -> Checkpoint:
        """What the module makes of some bytes."""
        return self.module.read(Memory(data), DEFAULT)

    # --- sniffing ------------------------------------------------------------------------------------------

    def test_it_claims_its_own_files(self) -> None:
        """Every sound file is claimed."""
        for name, data in self.good_files().items():
            assert self.module.sniff(Memory(data)), name

    def test_it_claims_nothing_else(self) -> None:
        """Neither other formats nor what is no checkpoint at all is claimed."""
        for name, data in self.foreign_files().items():
            assert not self.module.sniff(Memory(data)), name
        for data in NOTHING:
            assert not self.module.sniff(Memory(data)), data[:20]

    # --- sound files ---------------------------------------------------------------------------------------

    def test_sound_files_are_read_without_damage(self) -> None:
        """They have a tree, and nothing to complain about."""
        for name, data in self.good_files().items():
            checkpoint = self.read(data)
            assert checkpoint.root is not None, name
            assert [damage.rule for damage in checkpoint.damage] == [], name

    def test_reading_twice_gives_the_same(self) -> None:
        """Equal values, entry by entry."""
        for name, data in self.good_files().items():
            assert self.read(data) == self.read(data), name

    def test_what_is_read_pickles(self) -> None:
        """Work is sent to other processes."""
        for name, data in self.good_files().items():
            checkpoint = self.read(data)
            assert pickle.loads(pickle.dumps(checkpoint)) == checkpoint, name  # noqa: S301 - our own bytes

    def test_spans_lie_within_the_file(self) -> None:
        """So does every extent."""
        for name, data in self.good_files().items():
            checkpoint = self.read(data)
            spans = [s.span for s in checkpoint.storages if s.span] + [e.span for e in checkpoint.extents]
            assert all(0 <= span.start <= span.stop <= len(data) for span in spans), name

    def test_only_headers_are_read(self) -> None:
        """Of a large payload next to nothing is touched, save for a search from the file's end."""
        data = self.big_payload()
        if data is None:
            return
        source = Watched(data)
        checkpoint = self.module.read(source, DEFAULT)
        spans = [s.span for s in checkpoint.storages if s.span]
        touched = sum(source.read_within(span.start, span.stop) for span in spans)
        assert touched <= SEARCHED + 1024 * len(spans), f"{touched} bytes of tensors were read"

    def test_files_are_closed(self) -> None:
        """Reading from disk leaves no file open. Told from /proc, so on Linux alone."""
        listing = Path("/proc/self/fd")
        if not listing.is_dir():
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, data in self.good_files().items():
                path = Path(folder) / "file"
                path.write_bytes(data)
                before = len(list(listing.iterdir()))
                source = open_source(path)
                checkpoint = self.module.read(source, DEFAULT)
                source.close()
                assert len(list(listing.iterdir())) == before, name
                assert checkpoint.nbytes == len(data), name

    # --- broken files --------------------------------------------------------------------------------------

    def test_truncations_are_read(self) -> None:
        """Wherever a file is cut, there is an answer, and no exception."""
        for data in self.good_files().values():
            for cut in places(len(data)):
                self.check_total(data[:cut])

    def test_flipped_bits_are_read(self) -> None:
        """Whichever bit is turned over, there is an answer, and no exception."""
        for data in self.good_files().values():
            for place in places(len(data)):
                self.check_total(flip(data, place * 8 + place % 8))

    def check_total(self, data: bytes) -> None:
        """Reading gives a checkpoint whose entries end, in number linear in its nodes."""
        self.module.sniff(Memory(data))
        checkpoint = self.read(data)
        bound = 20_000 + 16 * len(checkpoint.nodes)
        count = sum(1 for _ in islice(checkpoint.entries(), bound))
        assert count < bound, f"{count} entries of {len(checkpoint.nodes)} nodes"


def places(size: int, count: int = CUTS) -> Iterator[int]:
    """About ``count`` offsets below ``size``: the first and last few, and evenly between them."""
    edge = min(count // 4, size)
    chosen = {*range(edge), *range(size - edge, size), *range(0, size, max(1, size // count))}
    return iter(sorted(place for place in chosen if 0 <= place < size))
