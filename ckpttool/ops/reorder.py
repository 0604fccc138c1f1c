"""Rows in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, Shape, axis, inverted, only, permutation

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Reorder(Moves):
    """Row ``i`` of the output is row ``indices[i]`` of the input, along ``dim``; every row once."""

    dim: int
    indices: Shape
    name: ClassVar[str] = "reorder"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        self.order(form)
        return (form,)

    def order(self, form: Form) -> Shape:
        """The indices, counted from the front."""
        return permutation(self.name, self.indices, form.shape[axis(self.name, self.dim, form)], "rows")

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [arrays[0].take(list(self.order(inputs[0])), self.dim)]

    def inverse(self, inputs: tuple[Form, ...]) -> Reorder:
        return Reorder(self.dim, inverted(self.order(inputs[0])))
