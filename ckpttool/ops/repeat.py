"""Copies of a tensor along its dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, Op, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moments, Moves, Shape, only, plural, shown

if TYPE_CHECKING:
    import numpy as np


class Copies(Moves):
    """Operations that give elements more than one place. Moments are dropped: a copy's gradients are its own."""

    __slots__ = ()

    @property
    def bijective(self) -> bool:
        return False

    @property
    def moments(self) -> Moments:
        return "are dropped"

    def for_moments(self) -> Op | None:
        """None: they are dropped."""
        return None

    def inverse(self, inputs: tuple[Form, ...]) -> Op | None:
        return None


@dataclass(frozen=True, slots=True)
class Repeat(Copies):
    """The whole tensor ``times[i]`` times along dimension ``i``, as ``torch.Tensor.repeat``; moments are dropped."""

    times: Shape
    name: ClassVar[str] = "repeat"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        if len(self.times) < len(form.shape) or any(count < 0 for count in self.times):
            raise OpError(
                f"{self.name}: {list(self.times)} times a tensor of {plural(len(form.shape), 'dimension')} "
                f"({shown(form.shape)})"
            )
        padded = (1,) * (len(self.times) - len(form.shape)) + form.shape
        return (Form(form.dtype, tuple(n * times for n, times in zip(padded, self.times, strict=True))),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        return [np.tile(arrays[0], self.times)]


@dataclass(frozen=True, slots=True)
class Expand(Copies):
    """Dimensions of size 1 take other sizes, as ``torch.Tensor.expand``; -1 keeps a size. Moments are dropped."""

    shape: Shape
    name: ClassVar[str] = "expand"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        new = len(self.shape) - len(form.shape)
        padded = (1,) * new + form.shape
        wanted = tuple(padded[i] if size == -1 and i >= new else size for i, size in enumerate(self.shape))
        if new < 0 or any(n not in (1, size) or size < 0 for n, size in zip(padded, wanted, strict=True)):
            raise OpError(f"{self.name}: {shown(form.shape)} does not expand to {shown(self.shape)}")
        return (Form(form.dtype, wanted),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        return [np.broadcast_to(arrays[0], self.forms(inputs)[0].shape)]
