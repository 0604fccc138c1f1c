"""Checkpoints without torch: stand-ins in nested containers, and whole files in three formats."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

from hypothesis import strategies as st

from ckpttool.dtypes import BYTE, SAFETENSORS, DType
from ckpttool.testing.plain import CLASS_OF, Global, Parameter, StateDict, Storage, Tensor
from ckpttool.testing.strategies.geometry import TYPED, dtypes, names, shapes, views
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file

UNTYPED = Global("torch.storage", "UntypedStorage")
PORTABLE = tuple(d.name for d in SAFETENSORS.values() if d.bits >= 8 and not d.name.endswith("fnu"))
"""The dtypes that safetensors and its torch binding share: it lacks ``F8_E8M0``."""


def contents(nbytes: int, dtype: DType) -> st.SearchStrategy[bytes]:
    """Bytes of that number which are valid for the dtype: any, but booleans are 0 or 1."""
    data = st.binary(min_size=nbytes, max_size=nbytes)
    return data.map(lambda found: bytes(b & 1 for b in found)) if dtype.kind == "bool" else data


@st.composite
def plain_tensors(draw: st.DrawFn, *, elements: st.SearchStrategy[DType] | None = None) -> Any:
    """Tensors and Parameters with a storage of their own, views of all kinds among them."""
    dtype = draw(dtypes() if elements is None else elements)
    view = draw(views())
    data = draw(contents(view.numel * dtype.itemsize, dtype))
    typed = dtype.name in CLASS_OF
    storage = Storage(data, dtype if typed else BYTE, cls=None if typed else UNTYPED)
    # Only floating point can require a gradient, and torch 2.13 cannot load one whose storage is untyped.
    grad = draw(st.booleans()) if typed and dtype.kind in ("float", "complex") else False
    made = Tensor(storage, view.shape, view.stride, view.offset, grad, dtype)
    return Parameter(made, grad) if draw(st.booleans()) else made


def scalars() -> st.SearchStrategy[Any]:
    """Plain values that torch loads without trust; NaN has a test of its own, since it equals nothing."""
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.binary(max_size=12)
    return st.none() | st.booleans() | numbers | texts


def keys() -> st.SearchStrategy[Any]:
    """Keys of dicts: mostly names; numbers, tuples and None too."""
    return names() | st.integers(-5, 300) | st.tuples(st.integers(0, 3), st.booleans()) | st.none()


def containers(leaves: st.SearchStrategy[Any], *, max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """``leaves`` inside dicts, OrderedDicts, lists and tuples, nested; sets of plain values."""

    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        dicts = st.dictionaries(keys(), inner, max_size=4)
        lists = st.lists(inner, max_size=4)
        return dicts | dicts.map(OrderedDict) | lists | lists.map(tuple)

    sets = st.sets(st.integers(-9, 9) | names(), max_size=4)
    return st.recursive(leaves | sets, around, max_leaves=max_leaves)


def plain_trees(*, max_leaves: int = 12, elements: st.SearchStrategy[DType] | None = None) -> st.SearchStrategy[Any]:
    """Nested containers of plain values and stand-in tensors."""
    return containers(scalars() | plain_tensors(elements=elements), max_leaves=max_leaves)


@st.composite
def plain_state_dicts(
    draw: st.DrawFn, *, max_size: int = 6, elements: st.SearchStrategy[DType] | None = None
) -> StateDict:
    """State dicts with ``_metadata``; some names share a tensor, some only its storage."""
    found = StateDict(draw(st.dictionaries(names(), plain_tensors(elements=elements), max_size=max_size)))
    for name in draw(st.lists(names(), max_size=2)) if found else []:
        other = draw(st.sampled_from(list(found.values())))
        inner = other.data if isinstance(other, Parameter) else other
        tied = Tensor(inner.storage, inner.shape, inner.stride, inner.offset, False, inner.dtype)
        found[name] = draw(st.sampled_from([other, tied]))
    found.state = {"_metadata": OrderedDict({"": {"version": 1}})}
    return found


def torch_files(values: st.SearchStrategy[Any] | None = None, *, checksums: bool = True) -> st.SearchStrategy[bytes]:
    """Files as ``torch.save`` writes them."""
    values = plain_trees() | plain_state_dicts() if values is None else values
    return values.map(lambda value: torch_file(value, checksums=checksums))


def legacy_files(values: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[bytes]:
    """Files as torch wrote them before 1.6."""
    if values is None:
        values = plain_trees(elements=dtypes(TYPED)) | plain_state_dicts(elements=dtypes(TYPED))
    return values.map(legacy_file)


@st.composite
def safetensors_files(draw: st.DrawFn, *, max_size: int = 6) -> bytes:
    """safetensors files, with and without metadata."""
    found = {}
    for name in draw(st.lists(names(), unique=True, max_size=max_size)):
        dtype = draw(dtypes(PORTABLE))
        shape = draw(shapes())
        data = draw(contents(math.prod(shape) * dtype.itemsize, dtype))
        found[name] = Tensor(Storage(data, dtype), shape, (), 0)
    metadata = draw(st.none() | st.dictionaries(names(), st.text(max_size=8), max_size=2))
    return safetensors_file({k: v for k, v in found.items() if k != "__metadata__"}, metadata)


def files() -> st.SearchStrategy[bytes]:
    """A sound file of any format. Shrinks to a safetensors file without tensors."""
    return safetensors_files() | torch_files() | legacy_files()
