"""Where a tensor's elements lie in its storage, each once, and how that order maps to row-major indices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ckpttool.frozen import dataclass
from ckpttool.model import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Order:
    """A tensor's dimensions from the greatest stride to the least; those of size 1 or stride 0 are left out.

    ``weights`` are the row-major strides of the same dimensions, so they turn coordinates into indices.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    weights: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """Elements from the first to just past the last one addressed."""
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))

    @property
    def dense(self) -> bool:
        """Whether the elements lie without gaps, in whatever order of dimensions."""
        return self.extent == self.numel and not self.folded

    @property
    def folded(self) -> bool:
        """Whether different coordinates may share an address."""
        inner = 1
        for n, s in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if s < inner:
                return True
            inner = (n - 1) * s + inner
        return False

    @property
    def row_major(self) -> bool:
        """Whether storage order is row-major order, nothing repeated."""
        expected = 1
        for n, weight in zip(reversed(self.shape), reversed(self.weights), strict=True):
            if weight != expected:
                return False
            expected *= n
        return True

    def logical(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row-major indices of elements given by their place in storage order."""
        found = places * 0
        for n, weight in zip(reversed(self.shape), reversed(self.weights), strict=True):
            places, coordinate = divmod(places, n)
            found += coordinate * weight
        return found


def order_of(tensor: Tensor) -> Order:
    """The storage order of a strided tensor that has elements."""
    weight, dims = 1, []
    for n, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if n > 1 and stride != 0:
            dims.append((stride, weight, n))
        weight *= n
    dims.sort(reverse=True)
    return Order(tuple(d[2] for d in dims), tuple(d[0] for d in dims), tuple(d[1] for d in dims))
