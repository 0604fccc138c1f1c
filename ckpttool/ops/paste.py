"""Boxes of a tensor into the whole that they were cut from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.boxes import Box, fits, overlap, uncovered
from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Moves, shown, taken

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Paste(Moves):
    """Put each input where its box begins. The boxes fill ``shape``, and each element is in one of them alone."""

    shape: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    name: ClassVar[str] = "paste"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        first = taken(self.name, inputs, len(self.starts))[0]
        boxes = []
        for number, (start, form) in enumerate(zip(self.starts, inputs, strict=True)):
            box = Box(start, form.shape)
            if form.dtype != first.dtype or not fits(box, self.shape):
                raise OpError(
                    f"{self.name}: input {number} is {form.dtype.name} {shown(form.shape)} at {start}, "
                    f"the whole {first.dtype.name} {shown(self.shape)}"
                )
            boxes.append(box)
        if uncovered(boxes, self.shape) or overlap(boxes) is not None:
            raise OpError(f"{self.name}: the {len(boxes)} inputs do not fill {shown(self.shape)} once")
        return (Form(first.dtype, self.shape),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        from ckpttool.ops.blocks import copy_into

        made = np.empty(self.shape, arrays[0].dtype)
        for start in self.starts:
            source = arrays.pop(0)
            stops = zip(start, source.shape, strict=True)
            copy_into(made[tuple(slice(s, s + n) for s, n in stops)], source)
        return [made]

    def inverse(self, inputs: tuple[Form, ...]) -> None:
        """None: a box is a slice along several dimensions, one operation each."""
        return
