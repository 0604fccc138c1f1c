"""Another order of dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, Shape, axis, inverted, only, permutation

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Permute(Moves):
    """Order the dimensions anew: dimension ``i`` of the output is dimension ``axes[i]`` of the input."""

    axes: Shape
    name: ClassVar[str] = "permute"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        axes = permutation(self.name, self.axes, len(form.shape), "axes")
        return (Form(form.dtype, tuple(form.shape[i] for i in axes)),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [arrays[0].transpose(self.axes)]

    def inverse(self, inputs: tuple[Form, ...]) -> Permute:
        return Permute(inverted(permutation(self.name, self.axes, len(inputs[0].shape), "axes")))


@dataclass(frozen=True, slots=True)
class Transpose(Moves):
    """Swap two dimensions, the last two where none are given; its own inverse."""

    first: int = -2
    second: int = -1
    name: ClassVar[str] = "transpose"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        return Permute(self.axes(only(self.name, inputs))).forms(inputs)

    def axes(self, form: Form) -> Shape:
        """The same as an order of all dimensions."""
        a, b = (axis(self.name, dim, form) for dim in (self.first, self.second))
        found = list(range(len(form.shape)))
        found[a], found[b] = b, a
        return tuple(found)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [arrays[0].swapaxes(self.first, self.second)]

    def inverse(self, inputs: tuple[Form, ...]) -> Transpose:
        return self
