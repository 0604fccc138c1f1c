"""Digests of a state's tensors in memory, by the shortest way that gives what sealing its file would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

from ckpttool.errors import printable
from ckpttool.manifest import TensorSeal
from ckpttool.measure.seals import address, tensor_seals
from ckpttool.memory import describe_state
from ckpttool.model import MAX_DEPTH

_CONTAINERS = ("dict", "OrderedDict", "list", "tuple")
_ATOMS = (str, int, float, bytes, type(None))


class PassingSeals:
    """Every tensor with the XXH3-128 of its content, under the key that it has in the file.

    Plain containers of plain tensors, which most states are, are walked as they stand, and digested while their bytes
    go by to the file. Anything else is described as its file would be, which costs about 20 µs an object,
    in ``pool`` where there is one.
    """

    def __init__(self, torch: ModuleType, obj: object, pool: ThreadPoolExecutor | None = None) -> None:
        self._torch, self._obj = torch, obj
        self._tensors: list[tuple[str, Any]] = []
        self._plain = _walk(torch, obj, "", self._tensors, MAX_DEPTH)
        self._awaited = {_place(tensor) for _, tensor in self._tensors if self._plain}
        self._passed: dict[tuple[int, int], Any] = {}
        self._early = pool.submit(_described, obj) if pool is not None and not self._plain else None

    def passing(self, data: memoryview) -> Any | None:
        """The digest to which these bytes are to be given: they are the memory of a whole tensor, by their address."""
        if len(data) < _WORTH_IT or (place := (address(data), len(data))) not in self._awaited:
            return None
        import xxhash

        self._awaited.discard(place)
        self._passed[place] = xxhash.xxh3_128()
        return self._passed[place]

    def made(self) -> tuple[TensorSeal, ...]:
        """The seals, once everything has gone by. Raises ``UsageError`` for what cannot be saved."""
        if self._early is not None:
            return self._early.result()
        if not self._plain:
            return _described(self._obj)
        return tuple(self._seal(key, tensor) for key, tensor in self._tensors)

    def _seal(self, key: str, tensor: Any) -> TensorSeal:
        passed = self._passed.get(_place(tensor))
        digest = passed.hexdigest() if passed is not None else _digest(self._torch, tensor)
        return TensorSeal(printable(key), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), digest)


_WORTH_IT = 1 << 14
"""Bytes from which the memory is slower than asking where it lies."""


def seals_of(torch: ModuleType, obj: object) -> tuple[TensorSeal, ...]:
    """The seals of a state that does not go by. Costs one read of its tensors."""
    return PassingSeals(torch, obj).made()


def _described(obj: object) -> tuple[TensorSeal, ...]:
    checkpoint, source = describe_state(obj, stateful=False)
    return tensor_seals(checkpoint, sources=(source,))


def _place(tensor: Any) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.nbytes


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


def _digest(torch: ModuleType, tensor: Any) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(tensor.detach().reshape(-1).view(torch.uint8).numpy())
