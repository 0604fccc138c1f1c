"""How torch spells storages and dense tensors in a pickle: which storage class, which rebuild function.

Source: torch 2.13 ``torch/_tensor.py`` (``_reduce_ex_internal``), ``torch/serialization.py`` (``persistent_id``).
"""

from __future__ import annotations

from collections.abc import Iterable

from ckpttool.dtypes import PACKED_STORAGES, STORAGE_CLASSES, DType
from ckpttool.formats.numpy_arrays import FORM as NUMPY
from ckpttool.frozen import dataclass
from ckpttool.model import Call, Checkpoint, Storage, Tensor

V1, V2, V3 = (f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
RAW = "storage"
"""The form of a storage that stands in the tree itself."""

CLASS_OF = {dtype.name: cls for cls, dtype in STORAGE_CLASSES.items() if "Untyped" not in cls}
"""Storage class by element type; what has none lives in untyped storages."""

_UNTYPED = (("torch.storage", "UntypedStorage"), ("torch", "UntypedStorage"), ("torch", "_UntypedStorage"),
            ("torch.storage", "_UntypedStorage"), ("torch.cuda", "UntypedStorage"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spelled:
    """How a storage is declared: its class and its number of elements of that class.

    Tensors that look into an ``untyped`` one say their type themselves.
    """

    module: str
    cls: str
    numel: int
    untyped: bool = False


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor's fields say everything, whatever format it comes from."""
    plain = tensor.call is None and tensor.layout == "strided"
    return plain and tensor.storage is not None and tensor.form not in (RAW, NUMPY)


def spelled_storages(checkpoint: Checkpoint, *, legacy: bool = False) -> tuple[Spelled, ...]:
    """How each storage is declared everywhere in the file: torch keeps one class for each.

    A storage that tensors of several types look into, or one of a type without a class, is untyped. Of bytes
    the tensors tell which class they are in, else what the file imports. The ``legacy`` loader knows no untyped
    storages (2.13 still does not), and those of bytes do as well.
    """
    seen: dict[int, set[str]] = {}
    untyped: set[int] = set()
    for node in checkpoint.nodes:
        if isinstance(node, Tensor) and node.storage is not None and is_dense(node):
            if node.form == V3:
                untyped.add(node.storage)
            else:
                seen.setdefault(node.storage, set()).add(node.dtype.name)
        elif isinstance(node, Call) and node.name == "_rebuild_tensor_v3" and node.args:
            raw = checkpoint.nodes[node.args[0]]
            if isinstance(raw, Tensor) and raw.storage is not None:
                untyped.add(raw.storage)
    mentioned = {(use.module, use.name) for use in checkpoint.globals}
    found = [
        _spelled(storage, seen.get(index, ()), index in untyped, mentioned)
        for index, storage in enumerate(checkpoint.storages)
    ]
    if legacy:
        found = [Spelled("torch", "ByteStorage", s.numel, untyped=True) if s.untyped else s for s in found]
    return tuple(found)


def _spelled(storage: Storage, seen: Iterable[str], untyped: bool, mentioned: set[tuple[str, str]]) -> Spelled:
    types = set(seen)
    kept = types.pop() if len(types) == 1 else storage.dtype.name
    cls = CLASS_OF.get(kept)
    bare_bytes = kept == "uint8" and not seen and any(known in mentioned for known in _UNTYPED)
    if cls is None or untyped or types or bare_bytes:
        module, cls = next((known for known in _UNTYPED if known in mentioned), _UNTYPED[0])
        return Spelled(module, cls, storage.nbytes, untyped=True)
    itemsize = 1 if cls in PACKED_STORAGES else STORAGE_CLASSES[cls].itemsize
    on_gpu = ("torch", cls) not in mentioned and ("torch.cuda", cls) in mentioned
    return Spelled("torch.cuda" if on_gpu else "torch", cls, storage.nbytes // itemsize)


def rebuild(tensor: Tensor, storage: Spelled) -> str:
    """The function that rebuilds a dense tensor from its storage: what its form says where that can do it."""
    if storage.untyped:
        return V3
    return V1 if tensor.form == V1 and not tensor.requires_grad else V2


def raw_range(tensor: Tensor, storage: Storage) -> tuple[int, int] | None:
    """Where a storage that stands in the tree itself starts and how long it is; None where it is a whole one."""
    length = tensor.shape[0] if tensor.shape else 0
    width = _width(tensor.dtype)
    whole = tensor.offset == 0 and length * width == storage.nbytes
    return None if whole else (tensor.offset, length)


def _width(dtype: DType) -> int:
    return max(1, dtype.itemsize)
