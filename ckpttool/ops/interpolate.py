"""Images of weights at another size, as ``torch.nn.functional.interpolate`` makes them.

Each dimension is resampled by a matrix of weights, built as in torch's ``UpSampleKernel.cpp``: pixel centres
(``align_corners=False``), a cubic with a = -0.75, or a = -0.5 where ``antialias`` widens the filter when shrinking.
Sums are in float64, so results differ from torch's, which are in float32, by torch's own rounding: below 2⁻¹⁸ of
the largest magnitude.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from ckpttool.expressions import Form, OpError
from ckpttool.frozen import dataclass
from ckpttool.ops.base import Mixes, Shape, axis, numbers, only, plural, shown

if TYPE_CHECKING:
    import numpy as np

Mode: TypeAlias = Literal["bicubic", "bilinear"]


@dataclass(frozen=True, slots=True)
class Interpolate(Mixes):
    """The dimensions ``dims`` resampled to ``size``; ``bilinear`` is ``linear`` where they are one."""

    size: Shape
    mode: Mode = "bicubic"
    antialias: bool = True
    dims: Shape = (-2, -1)
    name: ClassVar[str] = "interpolate"

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        form = only(self.name, inputs)
        numbers(self.name, inputs, "float")
        shape = list(form.shape)
        if len(self.size) != len(self.dims):
            raise OpError(
                f"{self.name}: {plural(len(self.size), 'size')} for {plural(len(self.dims), 'dimension')}"
            )
        for dim, size in zip(self._dims(form), self.size, strict=True):
            if size < 1 or shape[dim] < 1:
                raise OpError(
                    f"{self.name}: cannot resample {shape[dim]} rows to {size}; both need at least 1"
                )
            shape[dim] = size
        return (Form(form.dtype, tuple(shape)),)

    def _dims(self, form: Form) -> Shape:
        found = tuple(axis(self.name, dim, form) for dim in self.dims)
        if len(set(found)) != len(found):
            raise OpError(f"{self.name}: dimensions {list(self.dims)} of {shown(form.shape)} name one twice")
        return found

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        made = arrays[0].astype("f8")
        for dim, size in zip(self._dims(inputs[0]), self.size, strict=True):
            # Where no size changes torch hands back the image, and so does a matrix of ones and zeros.
            weights = resampling(made.shape[dim], size, self.mode, self.antialias)
            made = np.moveaxis(np.moveaxis(made, dim, -1) @ weights.T, -1, dim)
        return [made.astype(arrays[0].dtype)]


def resampling(old: int, new: int, mode: Mode, antialias: bool) -> np.ndarray:
    """The matrix (``new`` × ``old``) that resamples a line of pixels; each row adds up to 1."""
    import numpy as np

    made = np.zeros((new, old))
    scale = old / new
    for row in range(new):
        if antialias:
            _widened(made[row], scale * (row + 0.5), scale, mode)
        else:
            _sampled(made[row], scale * (row + 0.5) - 0.5, mode)
    return made


def _sampled(weights: np.ndarray, place: float, mode: Mode) -> None:
    """Weights at the neighbours of a place; the border's pixels stand for those beyond it."""
    if mode == "bilinear":
        place = max(place, 0.0)
    first = math.floor(place)
    neighbours = range(first - 1, first + 3) if mode == "bicubic" else range(first, first + 2)
    for at in neighbours:
        weights[min(max(at, 0), len(weights) - 1)] += _weight(place - at, mode, -0.75)


def _widened(weights: np.ndarray, centre: float, scale: float, mode: Mode) -> None:
    """Weights of a filter as wide as a new pixel, cut off at the border and brought to a sum of 1."""
    wide = max(scale, 1.0)
    support = (2.0 if mode == "bicubic" else 1.0) * wide
    first = max(int(centre - support + 0.5), 0)
    last = min(int(centre + support + 0.5), len(weights))
    for at in range(first, last):
        weights[at] = _weight((at - centre + 0.5) / wide, mode, -0.5)
    weights /= weights.sum()


def _weight(distance: float, mode: Mode, a: float) -> float:
    x = abs(distance)
    if mode == "bilinear":
        return max(1.0 - x, 0.0)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0
