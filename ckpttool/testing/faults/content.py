"""Values that no training means to save, although every byte is as it was written."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable

from ckpttool.testing.edit import edited, tensors
from ckpttool.testing.faults.geometry import matrix
from ckpttool.testing.faults.registry import Inapplicable, add, fault
from ckpttool.testing.plain import Parameter, Tensor, tensor

TORCH = ("torch-zip", "torch-legacy")
ANY = (*TORCH, "safetensors")


def _filled(name: str, rule: str, about: str, change: Callable[[Tensor, random.Random], bytes]) -> None:
    """The largest float32 matrix with other bytes."""

    def apply(data: bytes, rng: random.Random) -> bytes:
        def fill(value: object) -> None:
            found = matrix(value)
            found.storage.data = change(found, rng)

        return edited(data, fill)

    add(name, rule, ANY, about, apply)


def _one(number: float) -> Callable[[Tensor, random.Random], bytes]:
    """One random element replaced."""

    def change(found: Tensor, rng: random.Random) -> bytes:
        data = found.storage.data
        place = rng.randrange(len(data) // 4) * 4
        return data[:place] + struct.pack("<f", number) + data[place + 4 :]

    return change


def _noise(found: Tensor, rng: random.Random) -> bytes:
    """Bytes that were never floats: exponents from one end to the other, but no NaN or infinity."""
    words = (rng.getrandbits(32) & ~(1 << 27) for _ in range(len(found.storage.data) // 4))
    return struct.pack(f"<{len(found.storage.data) // 4}I", *words)


def _every(number: float) -> Callable[[Tensor, random.Random], bytes]:
    return lambda found, rng: struct.pack("<f", number) * (len(found.storage.data) // 4)


_filled("one-nan", "nan", "one element is not a number: a loss that exploded", _one(math.nan))
_filled("one-infinity", "infinity", "one element is infinite", _one(-math.inf))
_filled("over-half", "half-overflow", "a value that float16 cannot hold", _one(1e6))
_filled("zero-weights", "all-zero", "a weight matrix of zeros: lost, or never initialized", _every(0.0))
_filled("constant-weights", "constant", "a weight matrix of one value", _every(0.25))
_filled("noise-weights", "denormal-garbage", "memory that was never written to", _noise)


@fault("bool-bytes", "bool-bytes", *TORCH)
def bool_bytes(data: bytes, rng: random.Random) -> bytes:
    """A boolean mask whose bytes are neither 0 nor 1."""

    def change(value: object) -> None:
        state = holder_of_weights(value)
        state["mask"] = tensor((4,), b"\0\1\2\xff", "bool")

    return edited(data, change)


def holder_of_weights(value: object) -> dict[object, object]:
    """The dict that holds the largest matrix directly: the state dict."""
    wanted = matrix(value)
    path = next(path for path, found in tensors(value) if found is wanted)
    holder: object = value
    for step in path[:-1]:
        holder = holder[step]  # type: ignore[index]
    if not isinstance(holder, dict) or any(not isinstance(v, (Tensor, Parameter)) for v in holder.values()):
        raise Inapplicable("no plain state dict holds the weights")
    return holder
