"""What files record of tensors' content, so that equality as saved needs no reading. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckpttool.model import Checkpoint, Tensor

Recorded = tuple[str, int, int, str]
"""What a file records of a content: a checksum's algorithm and value, bytes, element type."""


def recorded(checkpoint: Checkpoint, indices: Iterable[int]) -> Mapping[int, Recorded]:
    """What the file itself records of tensors' content, by node index; reads nothing.

    Only of tensors that cover their whole storage row-major, where a checksum of just that is recorded: two
    tensors of which equal things are recorded were equal when they were saved. Of storages whose bytes are
    big-endian nothing is said, since the same record means another content.
    """
    found: dict[int, Recorded] = {}
    for index in indices:
        tensor = checkpoint.nodes[index]
        if not isinstance(tensor, Tensor) or tensor.storage is None:
            continue
        storage = checkpoint.storages[tensor.storage]
        whole = tensor.contiguous and tensor.offset == 0 and tensor.nbytes == storage.nbytes
        if whole and storage.checksum is not None and not storage.swapped:
            checksum = storage.checksum
            found[index] = (checksum.algorithm, checksum.value, storage.nbytes, tensor.dtype.name)
    return found
