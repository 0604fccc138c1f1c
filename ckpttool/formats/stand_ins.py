"""Small readers of what stands on the pickle machine's stack: is it a tensor, a shape, a storage class."""

from __future__ import annotations

from typing import Any

from ckpttool.dtypes import STORAGE_CLASSES, DType, dtype_of
from ckpttool.formats.stack import CallOf, DictOf, ListOf, Named, TensorOf
from ckpttool.model import Tensor

_STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})
DIMENSIONS = 1024
"""Dimensions of a tensor; torch's own operations stop at 64."""

_LAYOUTS = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")


def is_tensor(obj: Any) -> bool:
    """Whether a stand-in is a tensor, with or without a call around it."""
    return type(obj) in (Tensor, TensorOf)


def bare(obj: Any) -> Tensor:
    """The descriptor itself, with or without a call around it."""
    tensor: Tensor = obj.tensor if type(obj) is TensorOf else obj
    return tensor


def sizes(obj: Any) -> tuple[int, ...] | None:
    """A tuple of ints, or ``torch.Size`` of one; None for anything else."""
    if type(obj) is CallOf and obj.target.name == "Size" and len(obj.args) == 1:
        obj = obj.args[0]
    if type(obj) is ListOf and obj.kind == "list":
        obj = tuple(obj.items[: DIMENSIONS + 1])
    if type(obj) is not tuple or len(obj) > DIMENSIONS:
        return None
    for x in obj:
        if type(x) is not int:
            return None
    return obj


def tensors_in(obj: Any, most: int = 256) -> list[tuple[str, Any]]:
    """Tensors inside nested plain containers, with their paths; at most ``most`` values are looked at."""
    found: list[tuple[str, Any]] = []
    stack: list[tuple[str, Any]] = [("", obj)]
    for _ in range(most):
        if not stack:
            break
        path, here = stack.pop()
        if is_tensor(here):
            found.append((path or "data", here))
        elif type(here) is DictOf:
            flat = here.flat[: 2 * most]
            pairs = list(zip(flat[::2], flat[1::2], strict=False))
            stack.extend((_join(path, k if type(k) is str else "?"), v) for k, v in reversed(pairs))
        elif type(here) in (tuple, ListOf):
            inner = here[:most] if type(here) is tuple else here.items[:most]
            stack.extend((_join(path, str(i)), x) for i, x in reversed(list(enumerate(inner))))
    return found


def _join(path: str, step: str) -> str:
    return f"{path}.{step}" if path else step


def like(tensor: Tensor, *, requires_grad: bool, form: str, layout: str | None = None) -> Tensor:
    """A tensor with the same geometry, rebuilt by another function."""
    kept = tensor.layout if layout is None else layout
    return Tensor(tensor.dtype, tensor.shape, tensor.stride, tensor.offset, tensor.storage, requires_grad, kept, form)


def storage_dtype(cls: Any) -> DType | None:
    """The element type of a storage class; None if the name is not one."""
    if type(cls) is not Named or cls.module not in _STORAGE_MODULES:
        return None
    return STORAGE_CLASSES.get(cls.name)


def torch_dtype(name: Named) -> DType | None:
    """The element type that a ``torch.<name>`` global stands for."""
    return dtype_of(name.name) if name.module == "torch" else None


def layout_name(obj: Any) -> str | None:
    """``torch.serialization._get_layout('torch.sparse_coo')``, or the name itself."""
    if type(obj) is CallOf and obj.target.name == "_get_layout" and len(obj.args) == 1:
        obj = obj.args[0]
    if type(obj) is Named:
        obj = obj.name
    if type(obj) is not str:
        return None
    name = obj.removeprefix("torch.")
    return name if name in _LAYOUTS else None


def view_of(view: Any, numel: int) -> tuple[int, int]:
    """A legacy storage view ``(key, offset, size)``: where it starts and how many elements it has."""
    if type(view) is tuple and len(view) == 3 and type(view[1]) is int and type(view[2]) is int:
        return view[1], view[2]
    return 0, numel


def is_count(value: Any) -> bool:
    """Whether a value can be a number of elements."""
    return type(value) is int and 0 <= value < 1 << 62


def is_empty(obj: Any) -> bool:
    """Whether a value is None or an empty dict, as torch writes backward hooks."""
    return obj is None or (type(obj) is DictOf and not obj.flat and obj.state is None)


def short(value: Any) -> str:
    """A value as it may stand in a message."""
    if type(value) in (str, int, float):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "…"
    return f"<{type(value).__name__}>"
