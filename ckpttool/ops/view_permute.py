"""Layouts of attention heads: dimensions are cut up, the pieces ordered anew, and put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, Shape, inverted, numel_of, only, permutation, resolved
from ckpttool.ops.reshape import reshaped

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class ViewPermute(Moves):
    """Look at the elements as ``view``, order its dimensions by ``axes``, read the result as ``shape``.

    One size of ``view`` and of ``shape`` may be -1. Without ``shape`` the result has the input's. Rotary halves of
    Llama are ``view (heads, half, 2, -1)`` with ``axes (0, 2, 1, 3)``; interleaved qkv of GPT-NeoX
    ``view (heads, 3, size, -1)`` with ``axes (1, 0, 2, 3)``.
    """

    view: Shape
    axes: Shape
    shape: Shape | None = None
    name: ClassVar[str] = "view-permute"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        self.steps(form)
        shape = form.shape if self.shape is None else resolved(self.name, self.shape, numel_of(form))
        return (Form(form.dtype, shape),)

    def steps(self, form: Form) -> tuple[Shape, Shape]:
        """The view without -1, and the order of its dimensions counted from the front."""
        view = resolved(self.name, self.view, numel_of(form))
        return view, permutation(self.name, self.axes, len(view), "axes")

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        view, axes = self.steps(inputs[0])
        return [reshaped(reshaped(arrays[0], view).transpose(axes), self.forms(inputs)[0].shape)]

    def inverse(self, inputs: tuple[Form, ...]) -> ViewPermute:
        view, axes = self.steps(inputs[0])
        same = self.forms(inputs)[0].shape == inputs[0].shape
        back = None if same else inputs[0].shape
        return ViewPermute(tuple(view[i] for i in axes), inverted(axes), back)
