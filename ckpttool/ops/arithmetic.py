"""Sums and products of tensors.

The result has the first input's element type. Types of up to 32 bits are computed in float32 and rounded once,
as torch does on a CPU, and float64 in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Shape, axis, numbers, only, shown, taken, with_size

if TYPE_CHECKING:
    import numpy as np

NUMBERS = "float int uint bool complex"


@dataclass(frozen=True, slots=True)
class Add(Mixes):
    """The sum of two tensors of one shape; ``scale`` multiplies the second one first."""

    scale: float = 1
    name: ClassVar[str] = "add"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        if self.scale != 1:
            numbers(f"{self.name} with a scale", inputs, "float complex")
        return _alike(self.name, inputs)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        first, second = arrays
        return [first + (second if self.scale == 1 else second * second.dtype.type(self.scale))]


@dataclass(frozen=True, slots=True)
class Multiply(Mixes):
    """The product of two tensors, element by element: a pruned weight is ``orig × mask``.

    The second one may have a single element, which multiplies all, or dimensions of size 1.
    """

    name: ClassVar[str] = "multiply"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        return _alike(self.name, inputs)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [arrays[0] * arrays[1]]


@dataclass(frozen=True, slots=True)
class Scale(Mixes):
    """Every element times a number."""

    factor: float
    name: ClassVar[str] = "scale"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        numbers(self.name, taken(self.name, inputs, 1), "float complex")
        return (inputs[0],)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [arrays[0] * arrays[0].dtype.type(self.factor)]


@dataclass(frozen=True, slots=True)
class Sum(Mixes):
    """The sum over a dimension, which then has size 1: colours of a patch embedding become one."""

    dim: int
    name: ClassVar[str] = "sum"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        numbers(self.name, inputs, "float complex")
        return (with_size(form, axis(self.name, self.dim, form), 1),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        wide = "c16" if arrays[0].dtype.kind == "c" else "f8"
        return [arrays[0].sum(self.dim, dtype=wide, keepdims=True).astype(arrays[0].dtype)]


@dataclass(frozen=True, slots=True)
class MatMul(Mixes):
    """The matrix product of two matrices, times ``scale``. Sums are in the type that the inputs are decoded to."""

    scale: float = 1
    name: ClassVar[str] = "matmul"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        first, second = taken(self.name, inputs, 2)
        numbers(self.name, inputs, "float complex")
        _same_kind(self.name, inputs)
        return (Form(first.dtype, product_shape(self.name, first.shape, second.shape)),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return [_scaled(arrays[0] @ arrays[1], self.scale)]


@dataclass(frozen=True, slots=True)
class MergeLowRank(Mixes):
    """A low-rank adapter folded into its weight: ``W + scale × (B @ A)`` of inputs W, A and B, in that order.

    ``scale`` is alpha / rank. Convolutions of any kernel are multiplied with all but the first dimension flattened.
    ``rows_last`` is for weights that are stored transposed, such as GPT-2's.
    """

    scale: float = 1
    rows_last: bool = False
    name: ClassVar[str] = "merge-low-rank"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        whole, down, up = taken(self.name, inputs, 3)
        numbers(self.name, inputs, "float complex")
        _same_kind(self.name, inputs)
        made = product_shape(self.name, _flat(up.shape), _flat(down.shape))
        wanted = _flat(whole.shape)
        if (made[::-1] if self.rows_last else made) != wanted:
            raise OpError(f"{self.name}: B × A is {shown(made)}, the weight {shown(whole.shape)}")
        return (whole,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        whole, down, up = arrays
        change = _scaled(up.reshape(_flat(up.shape)) @ down.reshape(_flat(down.shape)), self.scale)
        return [whole + (change.T if self.rows_last else change).reshape(whole.shape)]


def product_shape(name: str, first: Shape, second: Shape) -> Shape:
    """The shape of a matrix product; raises ``OpError`` with the sizes that disagree."""
    if len(first) != 2 or len(second) != 2 or first[1] != second[0]:
        raise OpError(f"{name}: {shown(first)} times {shown(second)} is no product of matrices")
    return (first[0], second[1])


def _flat(shape: Shape) -> Shape:
    rest = 1
    for size in shape[1:]:
        rest *= size
    return (shape[0], rest) if shape else (1, 1)


def _scaled(array: np.ndarray, scale: float) -> np.ndarray:
    return array if scale == 1 else array * array.dtype.type(scale)


def _alike(name: str, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
    """The first form, where the second can be broadcast to it."""
    first, second = taken(name, inputs, 2)
    numbers(name, inputs, NUMBERS)
    _same_kind(name, inputs)
    rank = len(first.shape)
    padded = (1,) * (rank - len(second.shape)) + second.shape
    if len(padded) != rank or any(b not in (1, a) for a, b in zip(first.shape, padded, strict=True)):
        raise OpError(f"{name}: {shown(first.shape)} and {shown(second.shape)} have no common shape")
    return (first,)


def _same_kind(name: str, inputs: tuple[Form, ...]) -> None:
    """A result in the first input's type must be able to hold what the others bring."""
    order = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}
    first = inputs[0].dtype
    for form in inputs[1:]:
        if order[form.dtype.kind] > order[first.kind]:
            raise OpError(f"{name}: a result of {first.name} cannot hold {form.dtype.name}")
