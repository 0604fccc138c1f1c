"""Digests of tensors' logical content: what is equal whatever its strides, its shards, its format."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor

import numpy as np

from ckpttool.errors import Unreadable
from ckpttool.measure import handles
from ckpttool.measure.leaves import Content, content_of, deflated_extents, leaves
from ckpttool.measure.running import Progress, pool, throttled
from ckpttool.measure.schemes import scheme_of
from ckpttool.model import Checkpoint, Extent, Span
from ckpttool.pool import ordered_map
from ckpttool.source import Source


def digests(
    checkpoint: Checkpoint,
    indices: Iterable[int],
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    sources: Iterable[Source] = (),
    deflated: dict[Span, Extent] | None = None,
) -> dict[int, str]:
    """The XXH3-128 of each tensor's row-major, little-endian content, in hexadecimal, by node index.

    Equal content gives equal digests; shape and element type are not part of it. Tensors that are not wholly
    readable, packed or not strided are left out. Reads each tensor once; the same for every executor. ``deflated`` is
    ``deflated_extents(checkpoint)``, for callers that ask again and again.
    """
    with handles.run(sources) as run:
        deflated = deflated_extents(checkpoint) if deflated is None else deflated
        found = {index: content_of(checkpoint, index, run, deflated) for index in dict.fromkeys(indices)}
        known = {index: content for index, content in found.items() if content is not None}
        total = sum(content.tensor.nbytes for content in known.values())
        report = throttled(progress, total)
        results: dict[int, str] = {}
        small = {index: content for index, content in known.items() if content.tensor.nbytes <= _SMALL}
        large = {index: content for index, content in known.items() if index not in small}
        with pool(executor, total) as chosen:
            for part, helpers in ((large, chosen), (small, None)):
                done = ordered_map(_digest, part.values(), helpers)
                for (index, content), result in zip(part.items(), done, strict=True):
                    report(content.tensor.nbytes)
                    if result is not None:
                        results[index] = result
        return results


_SMALL = 1 << 18
"""Bytes up to which handing a tensor to another thread costs more than its digest."""


def _digest(content: Content) -> str | None:
    import xxhash

    made = xxhash.xxh3_128()
    seen = 0
    try:
        for leaf in leaves(content):
            made.update(leaf.astype(leaf.dtype.newbyteorder("<"), copy=False).view(np.uint8).data)
            seen += len(leaf)
    except Unreadable:
        return None
    wanted = content.tensor.numel * scheme_of(content.tensor.dtype).pair
    return made.hexdigest() if seen == wanted else None
