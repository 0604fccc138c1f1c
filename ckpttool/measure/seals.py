"""Digests of a checkpoint's files, block by block, and of its tensors: what sealing writes and verifying compares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from functools import partial

import xxhash

from ckpttool.errors import printable
from ckpttool.manifest import TensorSeal
from ckpttool.measure.digests import digests
from ckpttool.measure.running import pool
from ckpttool.model import Checkpoint, Tensor
from ckpttool.pool import ordered_map
from ckpttool.source import Source, open_source

STRIDE = 64 << 20
"""Bytes of one unit of work."""

_CHUNK = 4 << 20


def block_digests(
    path: str, block: int, *, executor: Executor | None = None, progress: Callable[[int], None] | None = None
) -> tuple[str, ...]:
    """The XXH3-128 of each block of a file, the last one short, in hexadecimal.

    Reads the file once, in parallel; memory stays at a block for each thread. Raises ``Unreadable``.
    """
    source = open_source(path)
    size = source.size
    source.close()
    step = max(block, STRIDE // block * block)
    found: list[str] = []
    with pool(executor, size) as chosen:
        for part in ordered_map(partial(_blocks, path, block, step, size), range(0, size, step), chosen):
            found.extend(part)
            if progress:
                progress(min(step, size))
    return tuple(found)


def _blocks(path: str, block: int, step: int, size: int, start: int) -> list[str]:
    source = open_source(path)
    buffer = memoryview(bytearray(min(block, _CHUNK)))
    try:
        stops = range(start, min(start + step, size), block)
        return [_digest(source.readinto, buffer, at, min(at + block, size)) for at in stops]
    finally:
        source.close()


def _digest(readinto: Callable[[int, memoryview], int], buffer: memoryview, start: int, stop: int) -> str:
    digest = xxhash.xxh3_128()
    while start < stop:
        got = readinto(start, buffer[: stop - start])
        if not got:
            break
        digest.update(buffer[:got])
        start += got
    return digest.hexdigest()


def bytes_digest(data: bytes) -> str:
    """The XXH3-128 of bytes at hand, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(data)


def sha256(path: str) -> str:
    """The SHA-256 of a whole file, in bounded memory."""
    source = open_source(path)
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    start = 0
    while got := source.readinto(start, buffer[: source.size - start]):
        digest.update(buffer[:got])
        start += got
    source.close()
    return digest.hexdigest()


def address(data: memoryview) -> int:
    """Where bytes begin in this process's memory."""
    import numpy as np

    found: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    return found


def tensor_seals(
    checkpoint: Checkpoint, sources: Iterable[Source] = (), *, executor: Executor | None = None
) -> tuple[TensorSeal, ...]:
    """Every tensor of a checkpoint with the digest of its content, components of sparse ones by their own names.

    ``sources`` are used by name instead of being opened.
    """
    found = list(tensors_of(checkpoint))
    known = digests(checkpoint, [index for _, index in found], executor=executor, sources=sources)
    return tuple(seal_of(checkpoint, key, index, known) for key, index in found)


def tensors_of(checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """The keys and node indices of all tensors, components of sparse ones by their own names."""
    for entry, tensor in checkpoint.tensors():
        if tensor.storage is not None or not tensor.parts or tensor.layout == "chunked":
            yield entry.key, entry.index
        for name, part in tensor.parts:
            if part != entry.index and tensor.storage is None and tensor.layout != "chunked":
                yield f"{entry.key}.{name}", part


def seal_of(checkpoint: Checkpoint, key: str, index: int, known: Mapping[int, str]) -> TensorSeal:
    """A tensor's seal, its digest from those that are known by node index."""
    node = checkpoint.nodes[index]
    assert isinstance(node, Tensor)
    return TensorSeal(printable(key), node.dtype.name, node.shape, known.get(index, ""))
