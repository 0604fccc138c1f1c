"""Several tensors into one along a dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, Op, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, axis, shown, taken, with_size

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Concat(Moves):
    """Put tensors after each other along ``dim``. Their element types and other sizes must agree."""

    dim: int = 0
    name: ClassVar[str] = "concat"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        first = taken(self.name, inputs, -1)[0]
        dim = axis(self.name, self.dim, first)
        for number, form in enumerate(inputs):
            if len(form.shape) != len(first.shape) or with_size(form, dim, 0) != with_size(first, dim, 0):
                raise OpError(_disagree(self.name, number, form, first))
        return (with_size(first, dim, sum(form.shape[dim] for form in inputs)),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [_joined(arrays, self.forms(inputs)[0], axis(self.name, self.dim, inputs[0]))]

    def inverse(self, inputs: tuple[Form, ...]) -> Op:
        from ckpttool.ops.split import Split

        dim = axis(self.name, self.dim, inputs[0])
        return Split(sizes=tuple(form.shape[dim] for form in inputs), dim=self.dim)


@dataclass(frozen=True, slots=True)
class Stack(Moves):
    """Put tensors of one form beside each other along a new dimension ``dim`` of the output."""

    dim: int = 0
    name: ClassVar[str] = "stack"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        first = taken(self.name, inputs, -1)[0]
        dim = axis(self.name, self.dim, first, 1)
        for number, form in enumerate(inputs):
            if form != first:
                raise OpError(_disagree(self.name, number, form, first))
        return (Form(first.dtype, (*first.shape[:dim], len(inputs), *first.shape[dim:])),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        dim = axis(self.name, self.dim, inputs[0], 1)
        form = self.forms(inputs)[0]
        arrays[:] = [np.expand_dims(array, dim) for array in arrays]
        return [_joined(arrays, form, dim)]

    def inverse(self, inputs: tuple[Form, ...]) -> Op:
        from ckpttool.ops.split import Unstack

        return Unstack(axis(self.name, self.dim, inputs[0], 1), len(inputs))


def _joined(arrays: list[np.ndarray], form: Form, dim: int) -> np.ndarray:
    """The arrays after each other; each is let go as soon as it is copied."""
    import numpy as np

    from ckpttool.ops.blocks import copy_into

    made = np.empty(form.shape, arrays[0].dtype)
    target = np.moveaxis(made, dim, 0)
    start = 0
    while arrays:
        source = np.moveaxis(arrays.pop(0), dim, 0)
        piece = np.moveaxis(target[start : start + len(source)], 0, dim)
        start += len(source)
        copy_into(piece, np.moveaxis(source, 0, dim))
    return made


def _disagree(name: str, number: int, form: Form, first: Form) -> str:
    if form.dtype != first.dtype:
        return f"{name}: input {number} is {form.dtype.name}, the first one {first.dtype.name}"
    return f"{name}: input {number} is {shown(form.shape)}, the first one {shown(first.shape)}"
