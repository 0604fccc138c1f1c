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
from ckpttool.ops.base import Mixes, Shape, axis, numbers, only, plural, shown, with_size

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
        return (resampled(self.name, inputs, self.size, self.dims),)

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        import numpy as np

        made = arrays[0].astype("f8")
        for dim, size in zip(places(self.name, inputs[0], self.dims), self.size, strict=True):
            # Where no size changes torch hands back the image, and so does a matrix of ones and zeros.
            weights = resampling(made.shape[dim], size, self.mode, self.antialias)
            made = np.moveaxis(np.moveaxis(made, dim, -1) @ weights.T, -1, dim)
        return [made.astype(arrays[0].dtype)]


def resampled(name: str, inputs: tuple[Form, ...], size: Shape, dims: Shape) -> Form:
    """The single input with ``size`` along ``dims``; an operation called ``name`` says what does not fit."""
    form = only(name, inputs)
    numbers(name, inputs, "float")
    if len(size) != len(dims):
        raise OpError(f"{name}: {plural(len(size), 'size')} for {plural(len(dims), 'dimension')}")
    for dim, new in zip(places(name, form, dims), size, strict=True):
        if new < 1 or form.shape[dim] < 1:
            raise OpError(f"{name}: cannot resample {form.shape[dim]} rows to {new}; both need at least 1")
        form = with_size(form, dim, new)
    return form


def places(name: str, form: Form, dims: Shape) -> Shape:
    """The dimensions counted from the front, each once."""
    found = tuple(axis(name, dim, form) for dim in dims)
    if len(set(found)) != len(found):
        raise OpError(f"{name}: dimensions {list(dims)} of {shown(form.shape)} name one twice")
    return found


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
