"""A checkpoint as plain Python values: containers, numbers, and stand-ins for what only torch can build.

``thaw`` turns what a reader described into values that can be edited; ``Pickled`` writes them as
``torch.save`` would. Nothing is imported that a file names. No torch is needed.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ckpttool.dtypes import DTYPES, STORAGE_CLASSES, DType

CLASS_OF = {d.name: name for name, d in STORAGE_CLASSES.items() if "Untyped" not in name}
"""Storage class by dtype name; dtypes without one live in ``UntypedStorage``."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the file asks to import."""

    module: str
    name: str

    def __call__(self) -> None:
        """Callable, as pickling a call demands; calling it is a mistake."""
        raise TypeError(f"{self.module}.{self.name} is only a name here")


@dataclass(eq=False, slots=True)
class Call:
    """A call that the file asks for, with what is set on its result. ``how`` is ``REDUCE`` or ``NEWOBJ``."""

    target: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)
    how: str = "REDUCE"


class StateDict(OrderedDict[Any, Any]):
    """An OrderedDict that carries attributes, as a module's state dict carries ``_metadata``."""

    state: Any = None


@dataclass(eq=False, slots=True)
class Storage:
    """Bytes that tensors look into. ``declared`` overrides the element count that the pickle states."""

    data: bytes
    dtype: DType
    device: str = "cpu"
    key: str | None = None
    declared: Any = None
    cls: Global | None = None


@dataclass(eq=False, slots=True)
class Tensor:
    """A strided tensor; ``stride`` and ``offset`` count elements. Nothing is checked: bad ones can be built.

    ``rebuilt`` replaces the call that spells it, for tensors that are no plain strided ones.
    """

    storage: Storage
    shape: tuple[Any, ...]
    stride: tuple[Any, ...]
    offset: Any = 0
    requires_grad: bool = False
    dtype: DType | None = None

    @property
    def kind(self) -> DType:
        """Its element type: its own where the storage is untyped."""
        return self.dtype or self.storage.dtype


@dataclass(eq=False, slots=True)
class Parameter:
    """A tensor saved as ``torch.nn.Parameter``."""

    data: Tensor
    requires_grad: bool = True


def row_major(shape: Iterable[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor of this shape."""
    stride: list[int] = []
    step = 1
    for size in reversed(tuple(shape)):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


def tensor(shape: Iterable[int], data: bytes, dtype: str = "float32", *, requires_grad: bool = False) -> Tensor:
    """A contiguous tensor with a storage of its own."""
    shape = tuple(shape)
    return Tensor(Storage(data, DTYPES[dtype]), shape, row_major(shape), 0, requires_grad)


class Pickled(pickle._Pickler):
    """Writes values as ``torch.save`` does, protocol 2; gathers ``storages`` in the order of first mention.

    Only the pure-Python pickler lets a name be written that cannot be imported. ``legacy`` adds the sixth
    item that storages have in the format of torch before 1.6.
    """

    memo: dict[int, tuple[int, Any]]  # filled by the pickler

    def __init__(self, *, legacy: bool = False) -> None:
        self.buffer = io.BytesIO()
        super().__init__(self.buffer, protocol=2)
        self.legacy = legacy
        self.storages: dict[str, Storage] = {}
        self._keys: dict[int, str] = {}
        self._names: dict[Global, Global] = {}
        self._strings: dict[str, str] = {}

    @classmethod
    def dumps(cls, value: Any, *, legacy: bool = False) -> tuple[bytes, dict[str, Storage]]:
        """The pickle and its storages by key."""
        pickler = cls(legacy=legacy)
        pickler.dump(value)
        return pickler.buffer.getvalue(), pickler.storages

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        key = self._key(obj)
        numel = len(obj.data) // max(obj.dtype.itemsize, 1) if obj.declared is None else obj.declared
        cls = obj.cls or Global("torch", CLASS_OF.get(obj.dtype.name, ""))
        pid = ("storage", self._name(cls), key, self._string(obj.device), numel)
        return (*pid, None) if self.legacy else pid

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """One value, stand-ins included; the strings that recur in every tensor are the same objects."""
        if isinstance(obj, Global):
            self._save_name(self._name(obj))
        elif isinstance(obj, (Tensor, Parameter, Call, StateDict)) and id(obj) not in self.memo:
            self._save_standin(obj)
        else:
            super().save(self._string(obj) if type(obj) is str else obj, save_persistent_id)  # type: ignore[misc]

    def _save_standin(self, obj: Any) -> None:
        if isinstance(obj, Tensor):
            self._call(obj, *_tensor_call(obj))
        elif isinstance(obj, Parameter):
            # Not OrderedDict[Any, Any](): that leaves an attribute behind, which would be pickled.
            hooks: OrderedDict[Any, Any] = OrderedDict()
            args = (obj.data, obj.requires_grad, hooks)
            self._call(obj, Global("torch._utils", "_rebuild_parameter"), args)
        elif isinstance(obj, StateDict):
            target = Global("collections", "OrderedDict")
            self._call(obj, target, (), obj.state, entries=iter(obj.items()))
        elif obj.how == "NEWOBJ":
            self.save(obj.target)
            self.save(obj.args)
            self.write(b"\x81")  # type: ignore[attr-defined]
            self._finish(obj)
        else:
            self._call(obj, obj.target, obj.args, obj.state, iter(obj.items), iter(obj.entries.items()))

    def _call(
        self, obj: Any, target: Global, args: Any, state: Any = None, items: Any = None, entries: Any = None
    ) -> None:
        self.save_reduce(target, args, state, items, entries, obj=obj)  # type: ignore[attr-defined]

    def _finish(self, obj: Call) -> None:
        self.memoize(obj)  # type: ignore[attr-defined]
        self._batch_appends(obj.items)  # type: ignore[attr-defined]
        self._batch_setitems(obj.entries.items())  # type: ignore[attr-defined]
        if obj.state is not None:
            self.save(obj.state)
            self.write(b"b")  # type: ignore[attr-defined]

    def _save_name(self, name: Global) -> None:
        known = self.memo.get(id(name))
        if known is not None:
            self.write(self.get(known[0]))  # type: ignore[attr-defined]
            return
        self.write(b"c" + f"{name.module}\n{name.name}\n".encode())  # type: ignore[attr-defined]
        self.memoize(name)  # type: ignore[attr-defined]

    def _name(self, name: Global) -> Global:
        return self._names.setdefault(name, name)

    def _string(self, text: str) -> str:
        return self._strings.setdefault(text, text)

    def _key(self, storage: Storage) -> str:
        if id(storage) not in self._keys:
            key = self._string(str(len(self.storages)) if storage.key is None else storage.key)
            self._keys[id(storage)] = key
            self.storages.setdefault(key, storage)
        return self._keys[id(storage)]


def _tensor_call(obj: Tensor) -> tuple[Global, tuple[Any, ...]]:
    hooks: OrderedDict[Any, Any] = OrderedDict()
    # Tuples of their own: torch makes them anew for each tensor, so its pickles never refer back to one.
    shape, stride = (*obj.shape,), (*obj.stride,)
    common = (obj.storage, obj.offset, shape, stride, obj.requires_grad, hooks)
    if obj.dtype is not None and obj.dtype != obj.storage.dtype:
        return Global("torch._utils", "_rebuild_tensor_v3"), (*common, Global("torch", obj.dtype.name))
    return Global("torch._utils", "_rebuild_tensor_v2"), common
