"""What stands on the pickle machine's stack: mutable stand-ins that become frozen nodes in the arena.

Plain values and tuples are Python's own (never hashed, compared or printed while they are untrusted);
everything that a pickle can change afterwards has a class here.
"""

from __future__ import annotations

from typing import Any


class ListOf:
    """A list, set, frozenset or deque under construction."""

    __slots__ = ("items", "kind", "state")

    def __init__(self, kind: str, items: list[Any]) -> None:
        self.kind = kind
        self.items = items
        self.state: Any = None


class DictOf:
    """A dict of some kind under construction: ``flat`` holds key, value, key, value, …"""

    __slots__ = ("extra", "flat", "kind", "state")

    def __init__(self, kind: str, extra: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.flat: list[Any] = []
        self.state: Any = None
        self.extra = extra


class Named:
    """A global: a name asked for and not imported. One object for each name, so identity is equality."""

    __slots__ = ("calls", "largest", "mentions", "module", "name", "odd_calls", "offset")

    def __init__(self, module: str, name: str, offset: int) -> None:
        self.module = module
        self.name = name
        self.offset = offset
        self.mentions = 0
        self.calls = 0
        self.odd_calls = 0
        self.largest = 0


class CallOf:
    """A call that was asked for and not made."""

    __slots__ = ("args", "flat", "how", "items", "state", "target")

    def __init__(self, how: str, target: Named, args: tuple[Any, ...]) -> None:
        self.how = how
        self.target = target
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []
        self.flat: list[Any] = []


class BytesAt:
    """A byte string left where it lies: offsets in the machine's buffer."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop


class StorageRef:
    """A storage asked for by persistent id: an index into the reader's table."""

    __slots__ = ("dtype", "index", "nbytes", "numel", "start")

    def __init__(self, index: int, dtype: Any, numel: int, nbytes: int, start: int = 0) -> None:
        self.index = index
        self.dtype = dtype
        self.numel = numel
        self.nbytes = nbytes
        self.start = start


class TensorOf:
    """A tensor that needs more than its descriptor: the call that rebuilds it and its component tensors."""

    __slots__ = ("call", "parts", "tensor")

    def __init__(self, tensor: Any, call: CallOf, parts: list[tuple[str, Any]]) -> None:
        self.tensor = tensor
        self.call = call
        self.parts = parts
