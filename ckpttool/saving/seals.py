"""Digests of a state's tensors in memory, by the shortest way that gives what sealing its file would."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ckpttool.errors import printable
from ckpttool.manifest import TensorSeal
from ckpttool.measure.seals import tensor_seals
from ckpttool.memory import describe_state
from ckpttool.model import MAX_DEPTH

_CONTAINERS = ("dict", "OrderedDict", "list", "tuple")
_ATOMS = (str, int, float, bytes, type(None))


def seals_of(torch: ModuleType, obj: object) -> tuple[TensorSeal, ...]:
    """Every tensor with the XXH3-128 of its content, under the key that it has in the file.

    Plain containers of plain tensors, which most states are, are walked as they stand; for anything else the state is
    described as its file would be, which costs about 20 µs an object. Raises ``UsageError`` for what cannot be saved.
    """
    found: list[tuple[str, Any]] = []
    if _walk(torch, obj, "", found, MAX_DEPTH):
        return tuple(_seal(torch, key, tensor) for key, tensor in found)
    checkpoint, source = describe_state(obj, stateful=False)
    return tensor_seals(checkpoint, sources=(source,))


def _walk(torch: ModuleType, obj: Any, key: str, found: list[tuple[str, Any]], depth: int) -> bool:
    """Collect the tensors below an object; False where it is not as plain as can be."""
    kind = type(obj)
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        found.append((key, obj))
        return _is_plain(torch, obj)
    if kind in _ATOMS or kind is bool:
        return True
    if kind.__name__ not in _CONTAINERS or kind.__module__ not in ("builtins", "collections") or not depth:
        return False
    if kind in (list, tuple):
        items = ((str(number), value) for number, value in enumerate(obj))
    elif all(type(name) in (str, int) for name in obj):
        items = ((str(name), value) for name, value in obj.items())
    else:
        return False
    start = f"{key}." if key else ""
    return all(_walk(torch, value, start + name, found, depth - 1) for name, value in items)


def _is_plain(torch: ModuleType, tensor: Any) -> bool:
    """Row-major bytes of this machine's memory, of a type whose elements are what they look like."""
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and tensor.dtype in _plain_types(torch)
        and not tensor.__dict__  # attributes are pickled too
    )


def _plain_types(torch: ModuleType) -> tuple[Any, ...]:
    return (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool, torch.complex64, torch.complex128,
    )  # fmt: skip


def _seal(torch: ModuleType, key: str, tensor: Any) -> TensorSeal:
    import xxhash

    flat = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    digest = xxhash.xxh3_128_hexdigest(flat)
    return TensorSeal(printable(key), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), digest)
