"""One tensor into several along a dimension."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, Shape, axis, only, with_size
from ckpttool.ops.concat import Concat, Stack

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Split(Moves):
    """Cut along ``dim`` into pieces of ``sizes`` (one may be -1: what is left), or into ``sections`` equal ones."""

    sizes: Shape = ()
    sections: int = 0
    dim: int = 0
    name: ClassVar[str] = "split"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        dim = axis(self.name, self.dim, form)
        return tuple(with_size(form, dim, size) for size in self.pieces(form))

    def pieces(self, form: Form) -> Shape:
        """The size of each piece along ``dim``."""
        dim = axis(self.name, self.dim, form)
        total = form.shape[dim]
        if bool(self.sizes) == bool(self.sections):
            raise OpError(f"{self.name}: needs sizes or a number of sections, one of the two")
        if self.sections < 0 or any(size < -1 for size in self.sizes) or self.sizes.count(-1) > 1:
            raise OpError(f"{self.name}: sizes {list(self.sizes)}, sections {self.sections} are no numbers of rows")
        if self.sections:
            if total % self.sections:
                raise OpError(
                    f"{self.name}: dimension {dim} has {total} rows, which {self.sections} equal sections cannot share"
                )
            return (total // self.sections,) * self.sections
        left = total - sum(size for size in self.sizes if size != -1)
        if left < 0 or (left and -1 not in self.sizes):
            asked = total - left
            raise OpError(f"{self.name}: sizes add up to {asked}, dimension {dim} has {total} rows")
        return tuple(left if size == -1 else size for size in self.sizes)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        cuts = list(accumulate(self.pieces(inputs[0])))[:-1]
        return list(np.split(arrays[0], cuts, axis=self.dim))

    def inverse(self, inputs: tuple[Form, ...]) -> Concat:
        return Concat(self.dim)


@dataclass(frozen=True, slots=True)
class Unstack(Moves):
    """One tensor for each row of ``dim``, which is left out; ``count`` of them where it is given."""

    dim: int = 0
    count: int = 0
    name: ClassVar[str] = "unstack"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        dim = axis(self.name, self.dim, form)
        if self.count and form.shape[dim] != self.count:
            raise OpError(f"{self.name}: dimension {dim} has {form.shape[dim]} rows, {self.count} are expected")
        piece = Form(form.dtype, form.shape[:dim] + form.shape[dim + 1 :])
        return (piece,) * form.shape[dim]

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        return list(np.moveaxis(arrays[0], self.dim, 0))

    def inverse(self, inputs: tuple[Form, ...]) -> Stack:
        return Stack(axis(self.name, self.dim, inputs[0]))
