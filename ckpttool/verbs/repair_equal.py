"""Storages of equal bytes: told by their digests, read only where sizes agree."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

from ckpttool.draft import Content, Draft
from ckpttool.writing.streams import Sink


def equal_storages(draft: Draft, among: Iterable[int]) -> list[list[int]]:
    """Groups of storages with the same bytes, in their order; reads those whose sizes agree. Raises ``Unreadable``."""
    sized: dict[int, list[int]] = {}
    for index in among:
        nbytes = draft.contents[index].nbytes
        if nbytes:
            sized.setdefault(nbytes, []).append(index)
    groups: dict[bytes, list[int]] = {}
    for alike in sized.values():
        if len(alike) > 1:
            for index in alike:
                groups.setdefault(digest(draft.contents[index]), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def digest(content: Content) -> bytes:
    """SHA-256 of a content's bytes."""
    sums = _Sums()
    with Sink(sums) as sink:
        sink.put(content)
    return sums.running.digest()


class _Sums(io.BytesIO):
    """A file that keeps nothing but the digest of what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.running = hashlib.sha256()

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self.running.update(view)
        return view.nbytes
