"""Names, element types, shapes and views: what tensors have before they have content."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import strategies as st

from ckpttool.dtypes import DTYPES, DType
from ckpttool.testing.plain import CLASS_OF, row_major

SAVED = (
    "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool complex64 complex128 "
    "float8_e4m3fn float8_e5m2 uint16 uint32 uint64 complex32 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
).split()
"""The dtypes that torch 2.13 saves and loads, the common ones first: shrinking goes that way."""


TYPED = tuple(name for name in SAVED if name in CLASS_OF)
"""Those that have a storage class of their own: the only ones that the format before torch 1.6 can hold."""


@dataclass(frozen=True, slots=True)
class View:
    """A window on a storage of ``numel`` elements; every index stays within it."""

    numel: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def dtypes(names: tuple[str, ...] = tuple(SAVED)) -> st.SearchStrategy[DType]:
    """Element types, out of ``names``. Shrinks to the first."""
    return st.sampled_from(names).map(DTYPES.__getitem__)


def shapes(
    *, min_dims: int = 0, max_dims: int = 4, min_side: int = 0, max_side: int = 5
) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes, scalars and empty ones among them. Shrinks to few, short dimensions."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def views(draw: st.DrawFn, *, max_dims: int = 4, max_side: int = 5, max_steps: int = 3) -> View:
    """What slicing, selecting, permuting and expanding make of a contiguous tensor.

    Shrinks to the contiguous tensor itself. Strides of 0 and gaps are rare in files and common in bugs.
    """
    shape = draw(shapes(max_dims=max_dims, max_side=max_side))
    view = View(math.prod(shape), shape, row_major(shape), 0)
    for step in draw(st.lists(st.sampled_from([_slice, _select, _permute, _expand]), max_size=max_steps)):
        view = draw(step(view))
    return view


def names(*, max_parts: int = 4) -> st.SearchStrategy[str]:
    """Dotted keys as modules have them, and now and then a text that no module has."""
    part = st.sampled_from("weight bias layers 0 1 attn mlp norm q k v".split())
    usual = st.lists(part, min_size=1, max_size=max_parts).map(".".join)
    return usual | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def _slice(draw: st.DrawFn, view: View) -> View:
    if not view.shape:
        return view
    dim = draw(st.integers(0, len(view.shape) - 1))
    size = view.shape[dim]
    start = draw(st.integers(0, size))
    step = draw(st.integers(1, 3))
    shape = _put(view.shape, dim, len(range(start, size, step)))
    # An empty slice may begin just past the end, which torch allows; its offset stays within.
    offset = view.offset + (start * view.stride[dim] if math.prod(shape) else 0)
    return View(view.numel, shape, _put(view.stride, dim, view.stride[dim] * step), offset)


@st.composite
def _select(draw: st.DrawFn, view: View) -> View:
    dims = [dim for dim, size in enumerate(view.shape) if size]
    if not dims or 0 in view.shape:
        return view
    dim = draw(st.sampled_from(dims))
    offset = view.offset + draw(st.integers(0, view.shape[dim] - 1)) * view.stride[dim]
    keep = [d for d in range(len(view.shape)) if d != dim]
    return View(view.numel, tuple(view.shape[d] for d in keep), tuple(view.stride[d] for d in keep), offset)


@st.composite
def _permute(draw: st.DrawFn, view: View) -> View:
    order = draw(st.permutations(range(len(view.shape))))
    return View(view.numel, tuple(view.shape[d] for d in order), tuple(view.stride[d] for d in order), view.offset)


@st.composite
def _expand(draw: st.DrawFn, view: View) -> View:
    return View(view.numel, (draw(st.integers(1, 4)), *view.shape), (0, *view.stride), view.offset)


def _put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
