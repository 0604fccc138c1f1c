"""A few elements of tensors as numbers: enough to see which contents vary together, at next to no cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckpttool.errors import Unreadable
from ckpttool.measure import handles
from ckpttool.measure.leaves import Content, content_of, deflated_extents, leaves
from ckpttool.measure.values import floats
from ckpttool.model import Checkpoint, Extent, Span, Tensor
from ckpttool.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE = 4096
"""Elements that are taken of a tensor at most, evenly along its dimensions."""


def samples(
    checkpoint: Checkpoint, indices: Iterable[int], *, sources: Iterable[Source] = ()
) -> dict[int, NDArray[np.float64]]:
    """Up to ``SAMPLE`` elements of each tensor by node index: the same places for tensors of one shape.

    What cannot be read, is packed or is not strided is left out. Never raises for what a file holds or lacks.
    """
    with handles.run(sources) as run:
        deflated = deflated_extents(checkpoint)
        found = {}
        for index in dict.fromkeys(indices):
            tensor = checkpoint.nodes[index]
            if not isinstance(tensor, Tensor) or len(tensor.shape) != len(tensor.stride):
                continue
            content = _thin_content(checkpoint, index, tensor, run, deflated)
            try:
                pieces = [] if content is None else [np.array(leaf) for leaf in leaves(content)]
            except Unreadable:
                continue
            if pieces:
                found[index] = floats(np.concatenate(pieces), tensor.dtype)
        return found


def _thin_content(
    checkpoint: Checkpoint, index: int, tensor: Tensor, run: str, deflated: dict[Span, Extent]
) -> Content | None:
    thin = thinned(tensor)
    if tensor.layout != "chunked":
        return content_of(replace(checkpoint, nodes=(thin,)), 0, run, deflated)
    whole = content_of(checkpoint, index, run, deflated)
    stop = thin.extent * thin.dtype.itemsize
    return None if whole is None else replace(whole, tensor=replace(thin, layout="strided"), stop=stop)


def thinned(tensor: Tensor) -> Tensor:
    """The view of every n-th row of each dimension, n as small as ``SAMPLE`` allows; the largest is thinned first."""
    steps = [1] * len(tensor.shape)
    sizes = list(tensor.shape)
    while sizes and int(np.prod(sizes, dtype=object)) > SAMPLE:
        dim = max(range(len(sizes)), key=sizes.__getitem__)
        steps[dim] *= 2
        sizes[dim] = -(-tensor.shape[dim] // steps[dim])
    stride = tuple(step * n for step, n in zip(tensor.stride, steps, strict=True))
    return replace(tensor, shape=tuple(sizes), stride=stride)


def correlations(
    ours: Mapping[int, NDArray[np.float64]], theirs: Mapping[int, NDArray[np.float64]], rows: int, columns: int
) -> NDArray[np.float64]:
    """How far samples vary together, each of ours (0 to ``rows``) with each of theirs; 0 where one is lacking."""
    found = np.zeros((rows, columns))
    left, right = (dict(_unit(side)) for side in (ours, theirs))
    if left and right:
        product = np.stack(list(left.values())) @ np.stack(list(right.values())).T
        found[np.ix_(list(left), list(right))] = product
    return found


def _unit(side: Mapping[int, NDArray[np.float64]]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Samples less their mean, of length 1; none for what is constant or not finite."""
    for at, values in side.items():
        with np.errstate(over="ignore", invalid="ignore"):
            apart = values - values.mean()
            length = float(np.sqrt((apart * apart).sum()))
        if np.isfinite(length) and length > 1e-12 * max(1.0, float(np.abs(values).max())):
            yield at, apart / length
