"""Tensors whose numbers do not fit their storage, each other, or any tensor at all."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from types import FunctionType
from typing import Any

from ckpttool.dtypes import DTYPES
from ckpttool.testing.edit import edited, tensors
from ckpttool.testing.faults.registry import Inapplicable, add
from ckpttool.testing.plain import Call, Global, Storage, Tensor, tensor

TORCH = ("torch-zip", "torch-legacy")


def matrix(value: Any) -> Tensor:
    """The largest tensor of two dimensions and float32 elements."""
    found = [t for _, t in tensors(value) if len(t.shape) == 2 and t.kind.name == "float32"]
    if not found:
        raise Inapplicable("the file has no float32 matrix")
    return max(found, key=lambda t: len(t.storage.data))


def _on_matrix(
    name: str, rule: str, about: str, change: Callable[[Tensor], None], formats: tuple[str, ...] = TORCH
) -> None:
    def apply(data: bytes, rng: random.Random) -> bytes:
        return edited(data, lambda value: change(matrix(value)))

    add(name, rule, formats, about, apply)


def _set(**fields: Any) -> Callable[[Tensor], None]:
    def change(found: Tensor) -> None:
        for name, value in fields.items():
            setattr(found, name, value(found) if isinstance(value, FunctionType) else value)

    return change


def _storage(**fields: Any) -> Callable[[Tensor], None]:
    def change(found: Tensor) -> None:
        for name, value in fields.items():
            setattr(found.storage, name, value(found) if isinstance(value, FunctionType) else value)

    return change


def _count(found: Tensor) -> int:
    return len(found.storage.data) // found.storage.dtype.itemsize


_on_matrix(
    "grown-shape",
    "view-out-of-bounds",
    "one row more than the storage holds",
    _set(shape=lambda t: (t.shape[0] + 1, t.shape[1])),
)
_on_matrix("far-offset", "view-out-of-bounds", "an offset past the storage", _set(offset=1 << 40))
_on_matrix("negative-offset", "view-out-of-bounds", "an offset before the storage", _set(offset=-1))
_on_matrix(
    "wide-stride",
    "view-out-of-bounds",
    "rows further apart than they were written",
    _set(stride=lambda t: (t.stride[0] * 2, 1)),
)
_on_matrix("negative-size", "invalid-shape", "a negative size", _set(shape=lambda t: (-1, t.shape[1])))
_on_matrix("overflowing-shape", "invalid-shape", "more elements than 64 bits can count", _set(shape=(1 << 40, 1 << 40)))
_on_matrix("missing-stride", "invalid-shape", "one stride fewer than sizes", _set(stride=(1,)))
_on_matrix("fractional-size", "invalid-shape", "a size that is no integer", _set(shape=lambda t: (0.5, t.shape[1])))
_on_matrix(
    "expanded-view",
    "expanded-view",
    "a thousand million rows that are all the same bytes",
    _set(shape=lambda t: (1 << 30, t.shape[1]), stride=(0, 1)),
)
_on_matrix(
    "bottomless-view",
    "content-unread",
    "windows over windows over windows: a thousand million elements of a page",
    _set(shape=(1000, 1000, 1000), stride=(1, 1, 1)),
)
_on_matrix("sliding-view", "overlapping-view", "windows that slide over the same bytes", _set(stride=(1, 1)))
_on_matrix(
    "more-declared",
    "storage-size",
    "the tree declares more elements than were written",
    _storage(declared=lambda t: _count(t) + 8),
    TORCH[:1],
)
_on_matrix(
    "fewer-declared",
    "storage-size",
    "the tree declares fewer elements than were written",
    _storage(declared=lambda t: _count(t) - 8),
    TORCH[:1],
)
_on_matrix("negative-count", "storage-declaration", "a negative element count", _storage(declared=-1))
_on_matrix("text-count", "storage-declaration", "an element count that is text", _storage(declared="many"))
_on_matrix(
    "unknown-class",
    "storage-class",
    "a storage class that torch does not have",
    _storage(cls=Global("torch", "MadeUpStorage")),
)


def _added(name: str, rule: str, about: str, make: Callable[[Any], Any]) -> None:
    """One entry more in the tree's root."""

    def apply(data: bytes, rng: random.Random) -> bytes:
        def change(value: Any) -> None:
            if not isinstance(value, dict):
                raise Inapplicable("the tree's root is no dict")
            value["added"] = make(value)

        return edited(data, change)

    add(name, rule, TORCH[:1], about, apply)


def _rebuilt(function: str, *args: Any) -> Call:
    return Call(Global("torch._utils", function), args)


def _integers(shape: tuple[int, ...], *values: int) -> Tensor:
    return tensor(shape, struct.pack(f"<{len(values)}q", *values), "int64")


def _sparse(value: Any) -> Call:
    layout = Call(Global("torch.serialization", "_get_layout"), ("torch.sparse_coo",))
    size = Call(Global("torch", "Size"), ((4, 4),))
    content = (_integers((2, 2), 0, 9, 1, 2), tensor((2,), struct.pack("<2f", 1, 2)), size, False)
    return _rebuilt("_rebuild_sparse_tensor", layout, content)


def _nested(value: Any) -> Call:
    buffer = tensor((4,), struct.pack("<4f", 1, 2, 3, 4))
    return _rebuilt(
        "_rebuild_nested_tensor", buffer, _integers((1, 2), 9, 9), _integers((1, 2), 9, 1), _integers((1,), 0)
    )


def _quantized(value: Any) -> Call:
    storage = Storage(bytes(8), DTYPES["qint8"])
    parameters = (Global("torch", "per_tensor_affine"), float("nan"), 0)
    return _rebuilt(
        "_rebuild_qtensor", storage, 0, (8,), (1,), parameters, False, Call(Global("collections", "OrderedDict"))
    )


def _meta(value: Any) -> Call:
    return _rebuilt(
        "_rebuild_meta_tensor_no_storage", Global("torch", "float32"), (1 << 30, 1 << 31), (1 << 31, 1), False
    )


def _conflict(value: Any) -> Tensor:
    """A second storage of another size and type under the key of the first that the file mentions."""
    first = tensors(value)[0][1].storage
    first.key = "0"
    other = Storage(first.data, DTYPES["uint8"], key="0")
    return Tensor(other, (len(other.data),), (1,))


_added("sparse-index", "sparse-index", "a sparse tensor with an index outside its shape", _sparse)
_added("nested-bounds", "nested-bounds", "a nested tensor that reaches past its buffer", _nested)
_added("nan-scale", "quantizer-parameters", "a quantized tensor whose scale is no number", _quantized)
_added("huge-meta", "huge-meta", "a tensor without bytes and with 2^61 elements", _meta)
_added("two-types", "storage-conflict", "one storage declared with two sizes and types", _conflict)
