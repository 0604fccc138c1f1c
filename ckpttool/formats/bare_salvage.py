"""A plain pickle that ends early or is damaged: what it had built by then."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.formats import bare_pickle
from ckpttool.formats.closing import Closed, closing
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Span
from ckpttool.source import Source


def read_started(source: Source, limits: Limits) -> tuple[Checkpoint, int] | None:
    """What a pickle holds up to the byte from which it cannot be read, and that byte; None where that is nothing.

    A pickle has no checksum: damage that still can be read is not seen.
    """
    if not bare_pickle.sniff(source):
        return None
    end = closing(source.window(0, min(source.size, limits.pickle_bytes)), 0, limits)
    if end is None:
        return None
    found = bare_pickle.read(Closed(source, end), limits)
    if found.root is None or len(found.nodes) < 2:
        return None
    extents = tuple(
        replace(one, span=Span(one.span.source, one.span.start, min(one.span.stop, end.at))) for one in found.extents
    )
    return replace(found, extents=extents, nbytes=source.size), end.at
