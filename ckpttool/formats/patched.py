"""A source of which some bytes are read as others: what a file was before a bit in it was flipped."""

from __future__ import annotations

from collections.abc import Mapping

from ckpttool.source import SimpleSource, Source


class Patched(SimpleSource):
    """A source with single bytes replaced, by offset. What is mapped or copied by others does not see it."""

    def __init__(self, source: Source, changed: Mapping[int, int]) -> None:
        self.name, self.size = source.name, source.size
        self._source = source
        self._changed = dict(changed)

    def read(self, start: int, nbytes: int) -> bytes:
        data = self._source.read(start, nbytes)
        inside = {at: value for at, value in self._changed.items() if start <= at < start + len(data)}
        if not inside:
            return data
        mended = bytearray(data)
        for at, value in inside.items():
            mended[at - start] = value
        return bytes(mended)

    def window(self, start: int, stop: int) -> bytes | memoryview:
        if any(start <= at < stop for at in self._changed):
            return self.read(start, stop - start)
        return self._source.window(start, stop)

    def changed(self) -> bool:
        return self._source.changed()

    def close(self) -> None:
        self._source.close()
