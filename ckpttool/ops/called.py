"""A function of the user's own as an operation: what rules have no words for."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ckpttool.dtypes import DType
from ckpttool.errors import CkpttoolError, printable
from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Moments, Shape, numbers, shown, taken

if TYPE_CHECKING:
    import numpy as np

Function: TypeAlias = Callable[..., Any]
"""Takes an array for each input, gives one: of NumPy, of torch, or whatever NumPy can make an array of."""


class CodeFailed(CkpttoolError):
    """A function of the user's own raised, or gave something else than it was to give; the text has file and line."""


@dataclass(frozen=True, slots=True)
class Called(Mixes):
    """One tensor by a function: called when the tensor is written, with its inputs as numbers, and once for each.

    Bfloat16 and 8-bit floats come as float32; the result is rounded to ``dtype`` (None: the first input's) and must
    have ``shape`` (None: the first input's). ``moves`` says that the function puts elements elsewhere and computes
    nothing, whatever they are: then moments go through it too. ``where`` names the code in errors.
    """

    function: Function
    where: str
    shape: Shape | None = None
    dtype: DType | None = None
    moves: bool = False
    name: ClassVar[str] = "compute"

    @property
    def bijective(self) -> bool:
        return self.moves

    @property
    def moments(self) -> Moments:
        return "follow" if self.moves else "are dropped"

    def for_moments(self) -> Called | None:
        """Itself where it only moves elements; moments keep a type of their own."""
        return Called(self.function, self.where, self.shape, None, True) if self.moves else None

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        if inputs:
            taken(self.name, inputs, -1)
            numbers(self.name, inputs)
        elif self.shape is None or self.dtype is None:
            raise OpError(f"{self.name}: a tensor without inputs needs a shape and an element type")
        made = Form(
            inputs[0].dtype if self.dtype is None else self.dtype, inputs[0].shape if self.shape is None else self.shape
        )
        numbers(self.name, (made,))
        return (made,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        try:
            found = as_array(self.function(*arrays))
        except (Exception, SystemExit) as error:
            raise CodeFailed(told(self.where, error)) from error
        (form,) = self.forms(inputs)
        if found.shape != form.shape:
            have, needs = shown(found.shape), shown(form.shape)
            raise CodeFailed(
                f"{printable(self.where)} – the function gave a tensor of {have}, the plan has {needs}: say shape=(…) "
                "where it is another one than the first input's"
            )
        if found.dtype.kind not in "biufc":
            raise CodeFailed(f"{printable(self.where)} – the function gave {found.dtype}, which are no numbers")
        return [found]


def as_array(value: Any) -> np.ndarray:
    """An array of NumPy from whatever a user's code gave; tensors of torch without importing it."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "float" in str(value.dtype) and "64" not in str(value.dtype) else value
        value = value.numpy()
    found: np.ndarray = np.asarray(value)
    return found


def told(where: str, error: BaseException) -> str:
    """An error of the user's code as one line, with where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    last = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    reason = traceback.format_exception_only(error)[-1].strip()
    return f"{printable(where)} – {printable(reason)}{printable(last)}"
