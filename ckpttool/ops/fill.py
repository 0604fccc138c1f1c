"""New tensors: of one value, like another one, or of numbers that count."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.dtypes import DTYPES, DType
from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Shape, numbers, only, plural, resolved, shown, taken

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Fill(Mixes):
    """A new tensor, every element of one value. It takes no input."""

    shape: Shape
    dtype: DType
    value: bool | int | float = 0
    name: ClassVar[str] = "fill"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        taken(self.name, inputs, 0)
        if any(size < 0 for size in self.shape):
            raise OpError(f"{self.name}: a shape of {shown(self.shape)} has a size below 0")
        form = Form(self.dtype, self.shape)
        numbers(self.name, taken(self.name, (form,), 1))
        _fits(self.name, self.value, self.dtype)
        return (form,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        return [np.broadcast_to(np.array(self.value, _held(self.value)), self.shape)]


@dataclass(frozen=True, slots=True)
class FillLike(Mixes):
    """A new tensor of another one's shape and, unless ``dtype`` is given, element type; its content is not read."""

    value: bool | int | float = 0
    dtype: DType | None = None
    name: ClassVar[str] = "fill-like"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        return self.fill(only(self.name, inputs)).forms(())

    def fill(self, form: Form) -> Fill:
        """The same with the shape and element type of this form."""
        return Fill(form.shape, self.dtype or form.dtype, self.value)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        return self.fill(inputs[0]).compute([], ())


@dataclass(frozen=True, slots=True)
class Arange(Mixes):
    """The numbers ``start``, ``start + step``, … in ``count`` elements; ``shape`` may put them in dimensions.

    ``position_ids`` of Hugging Face models are ``Arange(512, shape=(1, -1))``.
    """

    count: int
    start: int = 0
    step: int = 1
    dtype: DType = DTYPES["int64"]
    shape: Shape = (-1,)
    name: ClassVar[str] = "arange"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        taken(self.name, inputs, 0)
        if self.count < 0:
            raise OpError(f"{self.name}: {plural(self.count, 'element')} is fewer than 0")
        form = Form(self.dtype, resolved(self.name, self.shape, self.count))
        numbers(self.name, taken(self.name, (form,), 1))
        for value in (self.start, self.start + self.step * max(self.count - 1, 0)):
            _fits(self.name, value, self.dtype)
        return (form,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        found = np.array(range(self.start, self.start + self.step * self.count, self.step) or [], "i8")
        return [found.reshape(self.forms(())[0].shape)]


def _held(value: bool | int | float) -> str:
    """How NumPy holds the value until it is encoded."""
    if isinstance(value, float):
        return "f8"
    return "u8" if value > (1 << 63) - 1 else "i8"


def _fits(name: str, value: bool | int | float, dtype: DType) -> None:
    if dtype.kind not in ("int", "uint") or isinstance(value, bool):
        if not isinstance(value, float) and not -(1 << 63) <= value < 1 << 64:
            raise OpError(f"{name}: {value} does not fit 64 bits")
        return
    low, high = (
        (-(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1) if dtype.kind == "int" else (0, (1 << dtype.bits) - 1)
    )
    if value != value or not low <= value <= high or value != int(value):
        raise OpError(f"{name}: {value} is not one of {dtype.name}'s integers from {low} to {high}")
