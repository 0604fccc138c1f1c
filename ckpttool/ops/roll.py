"""Rows moved on in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, axis, only

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Roll(Moves):
    """Move rows of ``dim`` on by ``shift``, the last ones to the front. ``shift=-1`` puts the first row last."""

    dim: int
    shift: int
    name: ClassVar[str] = "roll"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        axis(self.name, self.dim, form)
        return (form,)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        return [np.roll(arrays[0], self.shift, self.dim)]

    def inverse(self, inputs: tuple[Form, ...]) -> Roll:
        return Roll(self.dim, -self.shift)
