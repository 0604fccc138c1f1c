"""Position embeddings of image transformers at another resolution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Shape, numbers, only, plural, shown, with_size
from ckpttool.ops.interpolate import Interpolate, Mode

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class ResizePositions(Mixes):
    """Embeddings (…, prefix + rows × columns, width) resampled to another grid, as timm's ``resample_abs_pos_embed``.

    ``grid`` is the new one, ``old`` the one before (a square where none is given); the first ``prefix`` embeddings,
    of class and register tokens, stay as they are. open_clip's ``resize_pos_embed`` is the same without a leading 1.
    """

    grid: Shape
    prefix: int = 1
    old: Shape | None = None
    mode: Mode = "bicubic"
    antialias: bool = True
    name: ClassVar[str] = "resize-positions"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        numbers(self.name, inputs, "float")
        if len(form.shape) < 2:
            raise OpError(f"{self.name}: {shown(form.shape)} has {plural(len(form.shape), 'dimension')}, not 2 or more")
        self.steps(form)
        return (with_size(form, len(form.shape) - 2, self.prefix + math.prod(self.grid)),)

    def steps(self, form: Form) -> Shape:
        """The old grid."""
        count = form.shape[-2] - self.prefix
        side = math.isqrt(max(count, 0))
        old = (side, side) if self.old is None else self.old
        if len(old) != 2 or len(self.grid) != 2 or math.prod(old) != count or min(*old, *self.grid) < 1:
            what = "a square grid" if self.old is None else f"a grid of {shown(self.old)}"
            raise OpError(
                f"{self.name}: {form.shape[-2]} embeddings less {self.prefix} are {count}, which do not fill {what}"
                f" to be made {shown(self.grid)}"
            )
        return old

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        array, old = arrays[0], self.steps(inputs[0])
        images = array[..., self.prefix :, :].reshape(*array.shape[:-2], *old, array.shape[-1])
        resized = Interpolate(self.grid, self.mode, self.antialias, (-3, -2))
        (made,) = resized.compute([images], (Form(inputs[0].dtype, images.shape),))
        rows = made.reshape(*array.shape[:-2], -1, array.shape[-1])
        return [np.concatenate([array[..., : self.prefix, :], rows], -2)]
