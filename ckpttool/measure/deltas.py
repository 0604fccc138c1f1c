"""How far two leaves are apart, in NumPy: the one definition that the compiled kernel follows to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ckpttool.changes import Tolerance
from ckpttool.dtypes import DType
from ckpttool.frozen import dataclass
from ckpttool.measure.kernels import Bits
from ckpttool.measure.sides import Sides, sides_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Flags: TypeAlias = NDArray[np.bool_]

LANES = 64
"""Running sums side by side: component ``i`` of a leaf is added to lane ``i % LANES``, lanes then by halves."""

STEP = 1 << 13
"""Elements looked at together: temporary values stay in a core's first caches."""

Sums: TypeAlias = "tuple[float, float, float, float, float]"
"""Of one leaf: ``|a - b|``, ``(a - b)**2``, ``a * b``, ``a * a``, ``b * b``, over what is finite on both sides."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is known of a run of elements. ``first`` counts from the begin of the tensor.

    ``finite`` counts components finite on both sides, of which a complex element has two. ``sums`` are by
    leaf, empty where the run was only found equal; ``some`` then says whether a finite value other than 0 is
    in it.
    """

    compared: int = 0
    changed: int = 0
    beyond: int = 0
    finite: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulp: int = 0
    first: int | None = None
    new_nan: int = 0
    lost_nan: int = 0
    new_inf: int = 0
    lost_inf: int = 0
    sums: tuple[Sums, ...] = ()
    some: bool = False


def merged(parts: Sequence[Tally]) -> Tally:
    """Runs of one tensor as one."""
    if len(parts) == 1:
        return parts[0]
    return Tally(
        **{name: sum(getattr(part, name) for part in parts) for name in _COUNTS},
        **{name: max((getattr(part, name) for part in parts), default=0) for name in _GREATEST},
        first=min((part.first for part in parts if part.first is not None), default=None),
        sums=tuple(leaf for part in parts for leaf in part.sums),
        some=any(part.some for part in parts),
    )


_COUNTS = ("compared", "changed", "beyond", "finite", "new_nan", "lost_nan", "new_inf", "lost_inf")
_GREATEST = ("max_abs", "max_rel", "max_ulp")


def tally(a: Bits, b: Bits, x: DType, y: DType, tolerance: Tolerance, begin: int = 0) -> Tally:
    """Compare leaf ``a`` of type ``x`` with leaf ``b`` of type ``y``: as many elements as both have.

    ``begin`` is the first element's index in the tensor.
    """
    pair = 2 if "complex" in (x.kind, y.kind) else 1
    step_a, step_b = (STEP * (2 if dtype.kind == "complex" else 1) for dtype in (x, y))
    lanes = np.zeros((5, LANES))
    parts: list[Tally] = []
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for at in range(-(-len(a) // step_a)):
            piece_a, piece_b = a[at * step_a : (at + 1) * step_a], b[at * step_b : (at + 1) * step_b]
            sides = sides_of(piece_a, piece_b, x, y, pair)
            ratio = parts[-1].max_rel if parts else 0.0
            parts.append(_tally(sides, pair, tolerance, begin + at * STEP, lanes, ratio))
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
    one, two, three, four, five = lanes[:, 0].tolist()
    return replace(merged(parts), sums=((one, two, three, four, five),))


def _tally(sides: Sides, pair: int, tolerance: Tolerance, begin: int, lanes: Floats, ratio: float) -> Tally:
    """A piece of a leaf; its products are added to ``lanes``, ``ratio`` is the leaf's ``max_rel`` so far."""
    a, b, ulps = sides.a, sides.b, sides.ulps
    finite = np.isfinite(a) & np.isfinite(b)
    odd = None if finite.all() else _odd(a, b, pair)
    nans = finite & False if odd is None else np.isnan(a) & np.isnan(b)
    if odd is not None:
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
        ulps = None if ulps is None else np.where(finite, ulps, 0)
    distance = np.abs(a - b) if sides.distance is None else sides.distance
    greater = np.maximum(np.abs(a), np.abs(b))
    _sum(lanes, distance, a, b)
    far = sides.changed
    if not tolerance.bitwise:  # NaN for NaN is near whatever their payloads, infinity only to itself
        far = far & ~(_near(distance, greater, ulps, tolerance) & finite | nans)
    changed = _either(sides.changed, pair)
    many = _count(changed)
    return Tally(
        compared=len(changed),
        changed=many,
        beyond=many if tolerance.bitwise else _count(_either(far, pair)),
        finite=_count(finite),
        max_abs=distance.max(initial=0.0).item(),
        max_rel=_max_rel(distance, greater, ratio),
        max_ulp=0 if ulps is None else int(ulps.max(initial=0)),
        first=begin + int(np.argmax(changed)) if many else None,
        new_nan=odd[0] if odd else 0,
        lost_nan=odd[1] if odd else 0,
        new_inf=odd[2] if odd else 0,
        lost_inf=odd[3] if odd else 0,
    )


def _odd(a: Floats, b: Floats, pair: int) -> tuple[int, int, int, int]:
    """New and lost NaN and infinities; an element that has both counts as NaN."""
    nan_a, nan_b = (_either(np.isnan(side), pair) for side in (a, b))
    inf_a, inf_b = _either(np.isinf(a), pair) & ~nan_a, _either(np.isinf(b), pair) & ~nan_b
    return (_count(nan_b & ~nan_a), _count(nan_a & ~nan_b), _count(inf_b & ~inf_a), _count(inf_a & ~inf_b))


def _max_rel(distance: Floats, greater: Floats, ratio: float) -> float:
    """The greatest quotient, at least ``ratio``: only divided where rounding leaves open that one is."""
    above = distance > ratio * (1 - 2.0**-50) * greater
    if not above.any():
        return ratio
    quotients: Floats = distance[above] / greater[above]
    return max(ratio, float(quotients.max()))


def _near(distance: Floats, greater: Floats, ulps: Bits | None, tolerance: Tolerance) -> Flags:
    near: Flags = distance <= tolerance.atol + tolerance.rtol * greater
    if ulps is not None and tolerance.ulp:
        near = near | (ulps <= min(tolerance.ulp, np.iinfo(ulps.dtype).max))
    return near


def _sum(lanes: Floats, distance: Floats, a: Floats, b: Floats) -> None:
    """Add rows of lanes one after the other to the lanes."""
    rows = -(-len(a) // LANES)
    table = np.zeros((5, (rows + 1) * LANES))
    table[:, :LANES] = lanes
    table[0, LANES : LANES + len(a)] = distance
    for row, (x, y) in enumerate(((distance, distance), (a, b), (a, a), (b, b)), 1):
        np.multiply(x, y, out=table[row, LANES : LANES + len(a)])
    np.add.reduce(table.reshape(5, rows + 1, LANES), axis=1, initial=0.0, out=lanes)


def _either(flags: Flags, pair: int) -> Flags:
    """For each element, whether one of its components has the flag."""
    return flags if pair == 1 else flags[::2] | flags[1::2]


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))
