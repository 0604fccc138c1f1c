"""More rows at the end: a vocabulary that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ckpttool.expressions import Form, Op, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Moments, axis, numbers, only, with_size
from ckpttool.ops.slice import Slice

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Pad(Mixes):
    """Let dimension ``dim`` have ``size`` rows: new ones at the end hold zeros, a number, or the ``mean`` of the old.

    Old rows keep their values, and their moments; new rows' moments are zeros.
    """

    dim: int
    size: int
    value: float | Literal["mean"] = 0
    name: ClassVar[str] = "pad"

    @property
    def decodes(self) -> bool:
        # Zero is bits of zero in every type that ``forms`` lets through, so elements need not be looked at.
        return self.value != 0

    @property
    def moments(self) -> Moments:
        return "follow"

    def for_moments(self) -> Op:
        """The same with zeros."""
        return Pad(self.dim, self.size)

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        numbers(self.name, inputs)
        dim = axis(self.name, self.dim, form)
        if self.size < form.shape[dim]:
            raise OpError(
                f"{self.name}: dimension {dim} has {form.shape[dim]} rows, more than the {self.size} asked for"
            )
        if form.dtype.name == "float8_e8m0fnu" and self.value == 0:
            raise OpError(f"{self.name}: {form.dtype.name} has no zero; 2**-127 is its least value")
        if self.value == "mean":
            numbers(f"{self.name} with a mean", inputs, "float complex")
            if not form.shape[dim]:
                raise OpError(f"{self.name}: 0 rows have no mean, {self.size} are asked for")
        return (with_size(form, dim, self.size),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        dim = axis(self.name, self.dim, inputs[0])
        array = arrays.pop()
        made = np.empty(self.forms(inputs)[0].shape, array.dtype)
        old = (slice(None),) * dim + (slice(array.shape[dim]),)
        new = (slice(None),) * dim + (slice(array.shape[dim], None),)
        made[old] = array
        if self.value == "mean":
            # A sum of a hundred thousand float32 rows would lose digits.
            wide = "c16" if array.dtype.kind == "c" else "f8"
            made[new] = array.mean(dim, dtype=wide, keepdims=True)
        else:
            made[new] = self.value
        return [made]

    def inverse(self, inputs: tuple[Form, ...]) -> Op:
        return Slice(self.dim, 0, inputs[0].shape[axis(self.name, self.dim, inputs[0])])
