"""The row-major content of a tensor whose boxes lie apart, as one run of bytes that never is anywhere as a whole."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

from ckpttool.boxes import Box, intersection, run_of_boxes
from ckpttool.errors import Unreadable
from ckpttool.frozen import dataclass

if TYPE_CHECKING:
    import numpy as np

    from ckpttool.source import Source


@dataclass(frozen=True, slots=True)
class Piece:
    """One box of a tensor: its first element's byte in a source, and its strides in elements."""

    box: Box
    source: str
    start: int
    stride: tuple[int, ...]

    @property
    def extent(self) -> int:
        """Elements from the first to just past the last."""
        return 1 + sum((n - 1) * step for n, step in zip(self.box.shape, self.stride, strict=True))


@dataclass(frozen=True, slots=True)
class Boxed:
    """A tensor's shape, its element's bytes, and its pieces by their first row; ``edges`` is where rows end so far."""

    shape: tuple[int, ...]
    width: int
    pieces: tuple[Piece, ...]
    rows: tuple[int, ...]
    edges: tuple[int, ...]


def boxed(shape: tuple[int, ...], width: int, pieces: Iterable[Piece]) -> Boxed:
    """The pieces in order. Expects that they fill the shape without an overlap."""
    ordered = tuple(sorted(pieces, key=lambda piece: piece.box.start))
    rows = tuple(piece.box.start[0] if shape else 0 for piece in ordered)
    edges = accumulate((piece.box.stop[0] if shape else 1 for piece in ordered), max)
    return Boxed(shape, width, ordered, rows, tuple(edges))


class BoxedBytes:
    """Reads ranges of the row-major content. Each costs one read for each box that it touches.

    Memory: the range alone where boxes lie row-major, else what a box spans, which is mapped where it is large.
    """

    def __init__(self, found: Boxed, source_of: Callable[[str], Source]) -> None:
        self._found = found
        self._source_of = source_of
        self._nbytes = found.width
        for size in found.shape:
            self._nbytes *= size

    def readinto(self, start: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from byte ``start``; short only at the end. Raises ``Unreadable``."""
        import numpy as np

        width = self._found.width
        stop = min(start + len(buffer), self._nbytes)
        if stop <= start:
            return 0
        first, last = start // width, -(-stop // width)
        if start % width or stop % width:
            space = np.empty((last - first) * width, np.uint8)
            self._fill(space, first, last)
            buffer[: stop - start] = space[start - first * width :][: stop - start].data
        else:
            self._fill(np.frombuffer(buffer, np.uint8, stop - start), first, last)
        return stop - start

    def _fill(self, flat: np.ndarray, first: int, last: int) -> None:
        width, at = self._found.width, 0
        kind = f"u{width}" if width in (1, 2, 4, 8) else f"V{width}"
        elements = flat.view(kind)
        for box in run_of_boxes(self._found.shape, first, last):
            self._fill_box(elements[at : at + box.numel].reshape(box.shape), box)
            at += box.numel

    def _fill_box(self, target: np.ndarray, box: Box) -> None:
        found = self._found
        low, high = (box.start[0], box.stop[0]) if box.start else (0, 1)
        begin, end = bisect_right(found.edges, low), bisect_left(found.rows, high)
        for piece in found.pieces[begin:end]:
            shared = intersection(box, piece.box)
            if shared is not None:
                where = tuple(
                    slice(s - t, s - t + n) for s, t, n in zip(shared.start, box.start, shared.shape, strict=True)
                )
                target[where] = self._read(piece, shared, target.dtype)

    def _read(self, piece: Piece, box: Box, kind: np.dtype) -> np.ndarray:
        """The elements of a piece that lie in a box."""
        import numpy as np

        width = self._found.width
        steps = zip(box.start, piece.box.start, piece.stride, strict=True)
        begin = piece.start + sum((s - t) * step for s, t, step in steps) * width
        extent = 1 + sum((n - 1) * step for n, step in zip(box.shape, piece.stride, strict=True))
        data = self._source_of(piece.source).window(begin, begin + extent * width)
        if len(data) < extent * width:
            why = f"ends before byte {begin + extent * width}, where a chunk of the tensor does"
            raise Unreadable(piece.source, why)
        strides = tuple(step * width for step in piece.stride)
        return np.lib.stride_tricks.as_strided(np.frombuffer(data, kind), box.shape, strides, writeable=False)
