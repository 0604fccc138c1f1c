"""Another element type."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.dtypes import DType
from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Moments, numbers, only

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Cast(Mixes):
    """The same numbers in another element type, rounded as torch's ``.to`` does.

    Floats round to nearest, ties to even, what is too large becomes infinity or NaN as the type has it; integers
    keep their low bits. A float that no value of an integer type can stand for is an ``OpError``: C leaves it
    undefined. Complex numbers cast to complex types only. Moments stay in their own type.
    """

    dtype: DType
    name: ClassVar[str] = "cast"

    @property
    def moments(self) -> Moments:
        return "stay"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        made = Form(self.dtype, form.shape)
        if self.dtype == form.dtype:
            return (made,)
        numbers(self.name, (form, made))
        if form.dtype.kind == "complex" != self.dtype.kind:
            raise OpError(f"{self.name}: elements of {form.dtype.name} are 2 numbers each, of {self.dtype.name} 1")
        if self.dtype.bits % 8:
            raise OpError(f"{self.name}: elements of {self.dtype.name} have {self.dtype.bits} bits, not 8 or more")
        return (made,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        # Whoever evaluates encodes numbers in the type that ``forms`` names.
        return [arrays[0]]
