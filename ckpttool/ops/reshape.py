"""The same elements in the same row-major order, under another shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, Shape, axis, numel_of, only, resolved, shown

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Reshape(Moves):
    """Read the elements, row-major, under another shape. One size may be -1: what is left."""

    shape: Shape
    name: ClassVar[str] = "reshape"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        return (Form(form.dtype, resolved(self.name, self.shape, numel_of(form))),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [reshaped(arrays[0], self.forms(inputs)[0].shape)]

    def inverse(self, inputs: tuple[Form, ...]) -> Reshape:
        return Reshape(inputs[0].shape)


@dataclass(frozen=True, slots=True)
class Squeeze(Moves):
    """Leave out dimensions of size 1. ``dims`` count in the input; without any, all of size 1 are left out."""

    dims: Shape = ()
    name: ClassVar[str] = "squeeze"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        gone = self._gone(form)
        return (Form(form.dtype, tuple(n for i, n in enumerate(form.shape) if i not in gone)),)

    def _gone(self, form: Form) -> Shape:
        if not self.dims:
            return tuple(i for i, size in enumerate(form.shape) if size == 1)
        found = tuple(sorted({axis(self.name, dim, form) for dim in self.dims}))
        for dim in found:
            if form.shape[dim] != 1:
                raise OpError(f"{self.name}: dimension {dim} of {shown(form.shape)} has size {form.shape[dim]}, not 1")
        return found

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [arrays[0].squeeze(self._gone(inputs[0]))]

    def inverse(self, inputs: tuple[Form, ...]) -> Reshape:
        return Reshape(inputs[0].shape)


@dataclass(frozen=True, slots=True)
class Unsqueeze(Moves):
    """Put in a dimension of size 1, before dimension ``dim`` of the input; -1 is after the last."""

    dim: int
    name: ClassVar[str] = "unsqueeze"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        at = axis(self.name, self.dim, form, 1)
        return (Form(form.dtype, (*form.shape[:at], 1, *form.shape[at:])),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [reshaped(arrays[0], self.forms(inputs)[0].shape)]

    def inverse(self, inputs: tuple[Form, ...]) -> Reshape:
        return Reshape(inputs[0].shape)


def reshaped(array: np.ndarray, shape: Shape) -> np.ndarray:
    """A view where one is possible, else a copy made in blocks that fit the processor's caches."""
    from ckpttool.ops.blocks import contiguous, viewed

    found = viewed(array, shape)
    return contiguous(array).reshape(shape) if found is None else found
