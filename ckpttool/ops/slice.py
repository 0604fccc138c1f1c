"""A part of a tensor along one dimension, and parts that together are all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, axis, only, with_size

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Slice(Moves):
    """Rows ``start`` to ``stop`` of a dimension, each ``step``-th of them, as Python slices a list.

    Rows are lost, so it cannot be undone alone; moments of the rows that stay follow. ``tiles`` tells when several
    slices of one tensor lose nothing together.
    """

    dim: int = 0
    start: int | None = None
    stop: int | None = None
    step: int = 1
    name: ClassVar[str] = "slice"

    @property
    def bijective(self) -> bool:
        return False

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        dim = axis(self.name, self.dim, form)
        return (with_size(form, dim, len(self.rows(form.shape[dim]))),)

    def rows(self, size: int) -> range:
        """The rows taken of a dimension of this size."""
        if self.step < 1:
            raise OpError(f"{self.name}: step {self.step} is below 1")
        return range(*slice(self.start, self.stop, self.step).indices(size))

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        dim = axis(self.name, self.dim, inputs[0])
        return [arrays[0][(slice(None),) * dim + (slice(self.start, self.stop, self.step),)]]

    def inverse(self, inputs: tuple[Form, ...]) -> None:
        return None


def tiles(slices: Sequence[Slice], form: Form) -> bool:
    """Whether slices of a tensor of this form, concatenated in this order, are that tensor."""
    dims = {axis(Slice.name, piece.dim, form) for piece in slices}
    if len(dims) != 1:
        return False
    size = form.shape[dims.pop()]
    return [row for piece in slices for row in piece.rows(size)] == list(range(size))
