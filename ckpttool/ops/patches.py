"""Patch embeddings of image transformers for patches of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Shape
from ckpttool.ops.interpolate import Mode, places, resampled, resampling

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class ResizePatches(Mixes):
    """Kernels (…, height, width) made for patches of ``size``: on resampled images they give what they gave before.

    That is FlexiViT's resize by pseudo-inverse, as timm's ``resample_patch_embed``: exact where patches grow, the least
    squares where they shrink. Sums are in float64, and the inverse has torch's cut-off of singular values. ``dims`` are
    the two dimensions of a patch.
    """

    size: Shape
    mode: Mode = "bicubic"
    antialias: bool = True
    dims: Shape = (-2, -1)
    name: ClassVar[str] = "resize-patches"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        return (resampled(self.name, inputs, self.size, self.dims),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        made = arrays[0].astype("f8")
        # The inverse of a product of two resamplings, one for each dimension, is the product of their inverses.
        for dim, size in zip(places(self.name, inputs[0], self.dims), self.size, strict=True):
            image = resampling(made.shape[dim], size, self.mode, self.antialias)
            inverse = np.linalg.pinv(image.T, rcond=max(image.shape) * np.finfo("f4").eps)
            made = np.moveaxis(np.moveaxis(made, dim, -1) @ inverse.T, -1, dim)
        return [made.astype(arrays[0].dtype)]
