"""Contents of what is migrated and of what it shall become, read when they are asked for, each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpttool.frozen import dataclass
from ckpttool.migration.inference import Axes, SideName
from ckpttool.model import Checkpoint, Extent, Span, Tensor
from ckpttool.pairing.near import View
from ckpttool.source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckpttool.measure.running import Progress


@dataclass(frozen=True, slots=True)
class Held:
    """One side's tensors: node indices in the order of its names, and the sources of bytes in memory."""

    checkpoint: Checkpoint
    nodes: tuple[int, ...]
    sources: tuple[Source, ...] = ()

    def view(self, view: View) -> Tensor | None:
        """The tensor that a view is; None for what has no strides."""
        node = self.checkpoint.nodes[self.nodes[view.place]]
        if not isinstance(node, Tensor) or node.layout != "strided" or len(node.stride) != len(node.shape):
            return None
        if view.axes:
            node = replace(
                node,
                shape=tuple(node.shape[axis] for axis in view.axes),
                stride=tuple(node.stride[axis] for axis in view.axes),
            )
        if view.whole:
            return node
        shape = (*node.shape[: view.dim], view.stop - view.start, *node.shape[view.dim + 1 :])
        return replace(node, shape=shape, offset=node.offset + view.start * node.stride[view.dim])


class Contents:
    """The ``Evidence`` of two checkpoints. Digests of whole tensors are kept, those of parts are not."""

    def __init__(self, a: Held, b: Held, executor: Executor | None = None, progress: Progress | None = None) -> None:
        self._sides = {"a": a, "b": b}
        self._executor = executor
        self._progress = progress
        self._known: dict[tuple[str, int], str | None] = {}
        self._deflated: dict[str, dict[Span, Extent]] = {}

    def digests(self, side: SideName, places: Sequence[int]) -> Mapping[int, str]:
        """Digests by place; what cannot be read is left out."""
        fresh = [place for place in places if (side, place) not in self._known]
        found = self._read(side, {place: View(place) for place in fresh})
        self._known |= {(side, place): found.get(place) for place in fresh}
        known = ((place, self._known[side, place]) for place in places)
        return {place: text for place, text in known if text is not None}

    def slices(
        self, side: SideName, place: int, axes: Axes, dim: int, cuts: Sequence[tuple[int, int]]
    ) -> Sequence[str]:
        """Digests of ``[start, stop)`` along ``dim``; none where one cannot be read."""
        views = {at: View(place, axes, dim, start, stop) for at, (start, stop) in enumerate(cuts)}
        found = self._read(side, views)
        return [found[at] for at in views] if len(found) == len(views) else []

    def turned(self, views: Sequence[tuple[int, Axes]]) -> Mapping[tuple[int, Axes], str]:
        """Digests of a's tensors with their axes in another order."""
        found = self._read("a", {at: View(place, axes) for at, (place, axes) in enumerate(views)})
        return {views[at]: text for at, text in found.items()}

    def alike(self, a: Sequence[View], b: Sequence[View]) -> NDArray[np.float64]:
        """Correlations of samples, a line for each of ``a``."""
        from ckpttool.measure.samples import correlations

        return correlations(self._samples("a", a), self._samples("b", b), len(a), len(b))

    def _samples(self, side: SideName, views: Sequence[View]) -> dict[int, NDArray[np.float64]]:
        from ckpttool.measure.samples import samples

        held = self._sides[side]
        checkpoint, at = _with(held, dict(enumerate(views)))
        found = samples(checkpoint, at, sources=held.sources)
        return {at[index]: values for index, values in found.items()}

    def _read(self, side: SideName, views: Mapping[int, View]) -> dict[int, str]:
        if not views:
            return {}
        from ckpttool.measure.digests import digests
        from ckpttool.measure.leaves import deflated_extents

        held = self._sides[side]
        if side not in self._deflated:
            self._deflated[side] = deflated_extents(held.checkpoint)
        checkpoint, at = _with(held, views)
        found = digests(
            checkpoint,
            at,
            executor=self._executor,
            progress=self._progress,
            sources=held.sources,
            deflated=self._deflated[side],
        )
        return {at[index]: text for index, text in found.items()}


def _with(held: Held, views: Mapping[int, View]) -> tuple[Checkpoint, dict[int, int]]:
    """A checkpoint whose nodes are the views, and which of them each node is."""
    made: Iterable[tuple[int, Tensor | None]] = ((at, held.view(view)) for at, view in views.items())
    known = [(at, tensor) for at, tensor in made if tensor is not None]
    nodes = tuple(tensor for _, tensor in known)
    return replace(held.checkpoint, nodes=nodes, root=None), {i: at for i, (at, _) in enumerate(known)}
