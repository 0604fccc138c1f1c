"""Digests of live values: XXH3-128 over type, shape and bytes, at memory's speed, without copies on the processor.

A group's digest is made from its members' names and digests, so that one pass serves both.
"""

from __future__ import annotations

import ctypes
import marshal
import random
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

LEAVES = 20_000
"""Values of one save that get a digest of their own; of a larger one only the parts do."""

ROWS = 512
"""Samples of a batch that get a digest of their own."""

_PLAIN_TENSORS = (Tensor, nn.Parameter, nn.Buffer) if hasattr(nn, "Buffer") else (Tensor, nn.Parameter)


def of_tensor(tensor: Tensor) -> str:
    """Over type, shape and bytes; of a distributed tensor its local part."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    head = f"{local.dtype}|{tuple(local.shape)}|".encode()
    return _add(xxhash.xxh3_128(head), local)


def _add(total: Any, tensor: Tensor) -> str:
    if tensor.layout is torch.strided and tensor.numel() and tensor.device.type != "meta":
        if tensor.device.type == "cpu" and type(tensor) in _PLAIN_TENSORS and tensor.is_contiguous():
            size = tensor.numel() * tensor.element_size()
            total.update((ctypes.c_char * size).from_address(tensor.data_ptr()))
        else:
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            total.update(flat.numpy())
    return str(total.hexdigest())


def raw(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes; of a distributed tensor those of its local part."""
    local = tensor.detach()
    local = local.to_local() if hasattr(local, "to_local") else local
    flat = local.to_dense() if local.layout is not torch.strided else local
    data = flat.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return str(local.dtype).removeprefix("torch."), tuple(local.shape), data


def of_group(members: Iterable[tuple[str, str]]) -> str:
    """One digest for named digests, whatever their order."""
    text = "\n".join(f"{name}={digest}" for name, digest in sorted(members))
    return str(xxhash.xxh3_128(text.encode()).hexdigest())


def joined(items: Sequence[str]) -> str:
    """One text for several: their digest in this order, the text itself where it is the only one, else nothing."""
    return items[0] if len(items) == 1 else of_value("|".join(items)) if items else ""


def of_value(value: object) -> str:
    """Over any nesting of containers, tensors, arrays and plain values; of other objects only their type.

    The order of a mapping's keys says nothing.
    """
    if isinstance(value, Tensor):
        return of_tensor(value)
    total = xxhash.xxh3_128()
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        name, item = stack.pop()
        if isinstance(item, Tensor):
            total.update(f"{name}={of_tensor(item)}".encode())
        elif isinstance(item, Mapping):
            total.update(f"{name}{{{len(item)}".encode())
            stack.extend((f"{name}.{key}", item[key]) for key in sorted(item, key=str, reverse=True))
        elif isinstance(item, (list, tuple)):
            total.update(f"{name}[{len(item)}".encode())
            stack.extend((f"{name}.{i}", part) for i, part in reversed(list(enumerate(item))))
        else:
            total.update(f"{name}{_plain(item)}".encode())
    return str(total.hexdigest())


def _plain(item: Any) -> str:
    if isinstance(item, float):
        return f"={item.hex()}"
    if item is None or isinstance(item, (bool, int, str, bytes, complex)):
        return f"={item!r}"
    if hasattr(item, "tobytes"):
        kind, shape = getattr(item, "dtype", ""), getattr(item, "shape", "")
        return f"|{kind}|{shape}|{xxhash.xxh3_128(item.tobytes()).hexdigest()}"
    return f":{type(item).__qualname__}"


def leaves(value: object, ignored: Collection[str] = ()) -> dict[str, str]:
    """A digest for each tensor and plain value by its path; containers of numbers alone are one leaf.

    Things with a ``state_dict`` are what that gives. Beyond ``LEAVES`` only the top-level parts are told.
    """
    found: dict[str, str] = {}
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        name, item = stack.pop()
        if name in ignored:
            continue
        if not isinstance(item, (Tensor, Mapping, list, tuple)) and hasattr(item, "state_dict"):
            item = item.state_dict()
        parts = _inside(item)
        if parts is None:
            found[name] = of_value(item)
        else:
            stack.extend((f"{name}.{key}" if name else key, part) for key, part in reversed(parts))
        if len(found) + len(stack) > LEAVES:
            tops = value.items() if isinstance(value, Mapping) else enumerate(_inside(value) or ())
            return {str(key): of_value(part) for key, part in tops if str(key) not in ignored}
    return found


def _inside(item: object) -> list[tuple[str, Any]] | None:
    """What is looked at one by one; None for a leaf."""
    if isinstance(item, Mapping):
        return [(str(key), item[key]) for key in item]
    if isinstance(item, (list, tuple)) and any(isinstance(part, (Tensor, Mapping, list, tuple)) for part in item):
        numbers = all(
            not isinstance(part, (Tensor, Mapping)) and _inside(part) is None for part in item
        )  # as the state of Python's generator
        return None if numbers else [(str(i), part) for i, part in enumerate(item)]
    return None


def nbytes(value: object, depth: int = 8) -> int:
    """Bytes of the tensors in plain containers: the least that a file with them has."""
    if isinstance(value, Tensor):
        return int(value.numel() * value.element_size())
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(nbytes(part, depth - 1) for part in parts) if depth else 0


def parts_of(found: Mapping[str, str]) -> dict[str, str]:
    """The digest of each top-level part, from those of the leaves."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, digest in found.items():
        groups.setdefault(name.partition(".")[0], []).append((name, digest))
    return {name: of_group(members) for name, members in groups.items()}


def rows_of(value: object) -> str:
    """Eight hex digits for each sample of the first tensor in a batch, one after the other; empty where unclear."""
    batch = _first_tensor(value)
    if batch is None or not batch.ndim or not 0 < len(batch) <= ROWS:
        return ""
    flat = batch.detach().cpu().contiguous().reshape(len(batch), -1)
    if not flat.shape[1]:
        return ""
    return "".join(xxhash.xxh3_64_hexdigest(row)[:8] for row in flat.view(torch.uint8).numpy())


def _first_tensor(value: object, depth: int = 4) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.layout is torch.strided and value.device.type != "meta" else None
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    tensors = (_first_tensor(part, depth - 1) for part in parts if depth)
    return next((tensor for tensor in tensors if tensor is not None), None)


def generators() -> dict[str, str]:
    """Digests of the states of all global generators."""
    found = {
        "rng.python": str(xxhash.xxh3_128(marshal.dumps(random.getstate())).hexdigest()),
        "rng.torch": of_tensor(torch.get_rng_state()),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        kind, keys, *rest = numpy.random.get_state()
        found["rng.numpy"] = str(xxhash.xxh3_128(f"{kind}{rest}".encode() + keys.tobytes()).hexdigest())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["rng.cuda"] = of_value(torch.cuda.get_rng_state_all())
    return found
