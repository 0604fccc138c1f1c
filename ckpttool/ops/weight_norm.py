"""Weight normalization folded into a weight, and taken out of it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Shape, axis, numbers, only, shown, taken

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class FoldWeightNorm(Mixes):
    """The weight ``g × v / ||v||`` of inputs g and v, the norm over every dimension but ``dim`` (None: over all)."""

    dim: int | None = 0
    name: ClassVar[str] = "fold-weight-norm"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        magnitude, direction = taken(self.name, inputs, 2)
        numbers(self.name, inputs, "float")
        wanted = _norm_shape(self.name, self.dim, direction)
        if magnitude.shape != wanted:
            raise OpError(f"{self.name}: g is {shown(magnitude.shape)}, v needs {shown(wanted)}")
        return (direction,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        magnitude, direction = arrays
        return [direction * (magnitude / _norm(self.name, direction, self.dim, inputs[1]))]


@dataclass(frozen=True, slots=True)
class UnfoldWeightNorm(Mixes):
    """Two outputs that weight normalization makes the weight of again, up to rounding: its norms, and itself."""

    dim: int | None = 0
    name: ClassVar[str] = "unfold-weight-norm"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        numbers(self.name, inputs, "float")
        return (Form(form.dtype, _norm_shape(self.name, self.dim, form)), form)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [_norm(self.name, arrays[0], self.dim, inputs[0]), arrays[0]]


def _norm_shape(name: str, dim: int | None, form: Form) -> Shape:
    if dim is None:
        return ()
    kept = axis(name, dim, form)
    return tuple(size if i == kept else 1 for i, size in enumerate(form.shape))


def _norm(name: str, array: np.ndarray, dim: int | None, form: Form) -> np.ndarray:
    """Lengths, summed in float64 and given in the array's type."""
    import numpy as np

    rest = tuple(i for i in range(array.ndim) if dim is None or i != axis(name, dim, form))
    squares = np.square(array, dtype="f8").sum(rest, keepdims=dim is not None)
    return np.asarray(np.sqrt(squares), array.dtype)
