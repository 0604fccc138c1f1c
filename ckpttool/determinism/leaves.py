"""Any training state as named leaves of bytes: digests of them, and the first element in which two differ.

Knows torch's and numpy's values by the modules that are loaded already, and imports neither torch nor what a state
names.
"""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEEPEST = 64
"""Containers within containers that are followed; what lies deeper counts by its type."""

MANY = 16
"""Integers in a row from which on they are kept as one leaf."""

FLOATS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Types with units in the last place, and their bytes."""


DIGITS = {"float64": 17, "float32": 9, "float16": 5, "bfloat16": 4}
"""Decimal digits that tell every two numbers of a type apart."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value: the name of its type, its shape, its bytes, which are a copy."""

    kind: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Element:
    """The first place where two states differ: the leaf's name, the index in it, both values as text.

    ``ulps`` counts the representable numbers between the two; None where the type has none, or one is no number.
    ``odd`` of ``total`` elements differ. A leaf that one side lacks has the text ``absent``.
    """

    name: str
    index: tuple[int, ...]
    one: str
    two: str
    ulps: int | None = None
    odd: int = 1
    total: int = 1

    def __str__(self) -> str:
        place = f"{self.name}[{', '.join(map(str, self.index))}]" if self.index else self.name
        far = "" if self.ulps is None else f", {self.ulps:,} ulp apart"
        more = f"; {self.odd:,} of {self.total:,} elements differ" if self.total > 1 else ""
        return f"{place} is {self.two}, not {self.one}{far}{more}"


Leaves = Mapping[str, Leaf]


def leaves_of(value: object, name: str = "") -> dict[str, Leaf]:
    """The leaves of a value by their paths: of containers, state dicts, tensors, arrays, generators, plain values."""
    return dict(_leaves(value, name, 0))


def _leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, Leaf]]:
    if (dense := _array(value)) is not None:
        yield name, dense
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        yield name, _plain(value)
    elif depth >= DEEPEST:
        yield name, Leaf("object", (), type(value).__qualname__.encode())
    elif isinstance(value, Mapping):
        yield f"{name}{{}}", Leaf("mapping", (len(value),), b"")
        for key in value:
            yield from _leaves(value[key], f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, (list, tuple)) and (packed := _packed(value)) is not None:
        yield name, packed
    elif isinstance(value, (list, tuple)):
        yield f"{name}[]", Leaf("sequence", (len(value),), b"")
        for place, part in enumerate(value):
            yield from _leaves(part, f"{name}.{place}" if name else str(place), depth + 1)
    elif isinstance(value, (set, frozenset)):
        yield name, Leaf("set", (len(value),), "|".join(sorted(map(repr, value))).encode())
    elif (state := _state(value)) is not None:
        yield from _leaves(state, name, depth + 1)
    else:
        yield name, Leaf("object", (), type(value).__qualname__.encode())


def _packed(value: Sequence[object]) -> Leaf | None:
    """Many integers as one leaf: a generator's state has hundreds. None for anything else."""
    numbers = [part for part in value if type(part) is int] if len(value) >= MANY else []
    if len(numbers) < MANY or len(numbers) < len(value):
        return None
    with contextlib.suppress(OverflowError):
        return Leaf("int64", (len(value),), array("q", numbers).tobytes())
    return None


def _plain(value: object) -> Leaf:
    if isinstance(value, float):
        import struct

        return Leaf("float64", (), struct.pack("<d", value))
    return Leaf(type(value).__name__, (), repr(value).encode())


def _array(value: Any) -> Leaf | None:
    """A tensor or an array as a leaf; None for everything else."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        local = value.detach()
        local = local.to_local() if hasattr(local, "to_local") else local
        local = local.to_dense() if local.layout != torch.strided else local
        flat = local.cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return Leaf(str(local.dtype).removeprefix("torch."), tuple(local.shape), data)
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        dense = numpy.asarray(value)
        data = repr(dense.tolist()).encode() if dense.dtype.hasobject else dense.tobytes()
        return Leaf(str(dense.dtype), tuple(dense.shape), data)
    return None


def _state(value: Any) -> object:
    """The state of a thing that has one: a state dict, or what a generator of numbers stands at."""
    import random

    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Generator):
        return value.get_state()
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return value.bit_generator.state
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    found = getattr(value, "state_dict", None)
    return found() if callable(found) and not isinstance(value, type) else None


def digest(leaves: Leaves) -> str:
    """XXH3-128 over the names, types, shapes and bytes of all leaves, whatever their order."""
    import xxhash

    total = xxhash.xxh3_128()
    for name in sorted(leaves):
        leaf = leaves[name]
        total.update(f"{name}|{leaf.kind}|{leaf.shape}|{len(leaf.data)}|".encode())
        total.update(leaf.data)
    return str(total.hexdigest())


# --- the first difference --------------------------------------------------------------------------------


def first_difference(one: Leaves, two: Leaves) -> Element | None:
    """The first leaf in which two states differ, in the order of the first, and the first element there."""
    for name in (*one, *(name for name in two if name not in one)):
        mine, theirs = one.get(name), two.get(name)
        if mine != theirs:
            return _element(name, mine, theirs)
    return None


def _element(name: str, one: Leaf | None, two: Leaf | None) -> Element:
    if one is None or two is None or (one.kind, one.shape) != (two.kind, two.shape):
        return Element(name, (), _described(one), _described(two))
    size = len(one.data) // max(_count(one.shape), 1)
    if not one.shape or one.kind in ("mapping", "sequence", "set", "object") or not size:
        return Element(name, (), _text(one, one.data), _text(two, two.data), _ulps(one.kind, one.data, two.data))
    odd = _odd(one.data, two.data, size)
    mine, theirs = (leaf.data[odd[0] * size : (odd[0] + 1) * size] for leaf in (one, two))
    index = _unravelled(odd[0], one.shape)
    ulps = _ulps(one.kind, mine, theirs)
    return Element(name, index, _text(one, mine), _text(two, theirs), ulps, len(odd), _count(one.shape))


def _odd(one: bytes, two: bytes, size: int) -> Sequence[int]:
    """The places of the elements that differ."""
    import numpy as np

    a, b = (np.frombuffer(data, np.uint8).reshape(-1, size) for data in (one, two))
    return [int(place) for place in np.flatnonzero((a != b).any(1))]


def _described(leaf: Leaf | None) -> str:
    if leaf is None:
        return "absent"
    if leaf.kind in ("mapping", "sequence"):
        return f"a {leaf.kind} of {leaf.shape[0]}"
    return f"{leaf.kind} {list(leaf.shape)}" if leaf.shape else _text(leaf, leaf.data)


def _text(leaf: Leaf, data: bytes) -> str:
    if leaf.kind in FLOATS:
        return f"{number_of(leaf.kind, data):.{DIGITS[leaf.kind]}g}"
    if leaf.kind in ("mapping", "sequence"):
        return _described(leaf)
    if leaf.shape and leaf.kind.startswith(("int", "uint", "bool")):
        return str(int.from_bytes(data, sys.byteorder, signed=leaf.kind.startswith("int")))
    shown = data.decode(errors="replace") if not leaf.shape else data.hex()
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def number_of(kind: str, data: bytes) -> float:
    """The value of one element of a type of ``FLOATS``."""
    import struct

    if kind == "bfloat16":
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    return float(struct.unpack({"float64": "<d", "float32": "<f", "float16": "<e"}[kind], data)[0])


def _ulps(kind: str, one: bytes, two: bytes) -> int | None:
    """Representable numbers between two; None for types without them, and where one is NaN."""
    if kind not in FLOATS or any(number != number for number in (number_of(kind, one), number_of(kind, two))):
        return None
    return abs(_ordered(one) - _ordered(two))


def _ordered(data: bytes) -> int:
    """The bits of a float as an integer that grows with it; both zeros are 0."""
    bits = int.from_bytes(data, "little")
    sign = 1 << (8 * len(data) - 1)
    return -(bits - sign) if bits & sign else bits


def _count(shape: Iterable[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _unravelled(place: int, shape: Sequence[int]) -> tuple[int, ...]:
    found = []
    for length in reversed(shape):
        place, rest = divmod(place, length)
        found.append(rest)
    return tuple(reversed(found))
