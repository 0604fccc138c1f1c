"""What torch's rebuild functions mean, told from their arguments without calling them.

Sources: torch 2.13 ``torch/_utils.py`` and ``torch/_tensor.py`` (``_rebuild_*``), ``torch/serialization.py``
(persistent ids), ``torch/_weights_only_unpickler.py``. Old spellings are read too: ``torch.tensor`` up to 1.12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpttool.dtypes import BYTE, PACKED_STORAGES, STORAGE_CLASSES, DType, dtype_of
from ckpttool.formats.pickle_machine import Reducer
from ckpttool.formats.pickle_terms import NOT_MINE, Problem
from ckpttool.formats.stack import BytesAt, CallOf, DictOf, ListOf, Named, StorageRef, TensorOf
from ckpttool.model import Storage, Tensor
from ckpttool.safety import standing

_STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})
DIMENSIONS = 1024
"""Dimensions of a tensor; torch's own operations stop at 64."""

_LAYOUTS = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")


class TorchValues:
    """The torch vocabulary for one pickle: gathers storages, gives the machine its reducers.

    ``storages`` are in order of first mention; their spans are filled in by the format that knows where they
    lie, and their indices count from ``first``. ``modules`` says
    that persistent ids of module classes belong here, as in torch before 1.6. ``problems`` are
    persistent ids or arguments that torch itself would never write.
    """

    def __init__(self, first: int = 0, *, modules: bool = False) -> None:
        self.first = first
        self.modules = modules
        self.storages: list[Storage] = []
        self.problems: list[Problem] = []
        self._by_key: dict[str, int] = {}
        self._globals: dict[str, Named] = {}
        self._checked: dict[int, tuple[DictOf, int]] = {}
        self.reducers: dict[tuple[str, str], Reducer] = self._reducers()

    # --- storages --------------------------------------------------------------------------------------

    def persistent(self, pid: Any) -> Any:
        """``('storage', class, key, location, numel[, view])`` as a ``StorageRef``."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            if self.modules and type(pid) is tuple and len(pid) == 4 and pid[0] == "module":
                # A container class with its source text (torch before 1.6): the class is what counts.
                return pid[1]
            self._problem("persistent-id", "a persistent id that is not a torch storage")
            return NOT_MINE
        _, cls, key, location, numel = pid[:5]
        dtype = _storage_dtype(cls)
        if dtype is None or type(key) not in (str, int) or type(location) is not str or not _is_count(numel):
            return self._bad_storage(cls, key, location, numel)
        packed = cls.name in PACKED_STORAGES
        nbytes = numel if packed else numel * dtype.itemsize
        index = self._register(str(key), dtype, nbytes, location)
        view = pid[5] if len(pid) == 6 else None
        start, numel = _view_of(view, numel)
        return StorageRef(index, BYTE if packed else dtype, numel, nbytes, start)

    def _register(self, key: str, dtype: DType, nbytes: int, location: str) -> int:
        index = self._by_key.get(key)
        if index is None:
            index = self._by_key[key] = self.first + len(self.storages)
            self.storages.append(Storage(key, dtype, nbytes, device=location))
            return index
        known = self.storages[index - self.first]
        if known.nbytes != nbytes or known.dtype != dtype:
            self._problem(
                "storage-conflict",
                f"storage {key!r} is declared as {known.nbytes} bytes of {known.dtype.name} "
                f"and again as {nbytes} bytes of {dtype.name}",
            )
        return index

    def _bad_storage(self, cls: Any, key: Any, location: Any, numel: Any) -> Any:
        name = f"{cls.module}.{cls.name}" if type(cls) is Named else type(cls).__name__
        known = type(cls) is Named and _storage_dtype(cls) is not None
        detail = f"class {name}, element count {_short(numel)}"
        self._problem("storage-declaration" if known else "storage-class", f"storage {_short(key)}: {detail}")
        return NOT_MINE

    def _problem(self, rule: str, message: str) -> None:
        if len(self.problems) < 1000:
            self.problems.append(Problem(rule, 0, message))

    # --- tensors ---------------------------------------------------------------------------------------

    def _reducers(self) -> dict[tuple[str, str], Reducer]:
        utils = "torch._utils"
        table: dict[tuple[str, str], Reducer] = {
            (utils, "_rebuild_tensor"): self._tensor_v1,
            (utils, "_rebuild_tensor_v2"): self._tensor_v2,
            (utils, "_rebuild_tensor_v3"): self._tensor_v3,
            (utils, "_rebuild_parameter"): self._wrapper("_rebuild_parameter", 3, 3),
            (utils, "_rebuild_parameter_with_state"): self._wrapper("_rebuild_parameter_with_state", 4, 4),
            (utils, "_rebuild_qtensor"): self._quantized,
            (utils, "_rebuild_sparse_tensor"): self._sparse,
            (utils, "_rebuild_sparse_csr_tensor"): self._sparse,
            (utils, "_rebuild_nested_tensor"): self._nested,
            (utils, "_rebuild_meta_tensor_no_storage"): self._meta,
            (utils, "_rebuild_wrapper_subclass"): self._wrapper_subclass,
            (utils, "_rebuild_device_tensor_from_cpu_tensor"): self._wrapper(
                "_rebuild_device_tensor_from_cpu_tensor", 4, 4
            ),
            ("torch._tensor", "_rebuild_from_type_v2"): self._from_type,
            ("torch._tensor", "_rebuild_from_type"): self._from_type,
            ("torch.nested._internal.nested_tensor", "_rebuild_njt"): self._jagged,
        }
        table["torch.tensor", "_rebuild_from_type"] = table["torch._tensor", "_rebuild_from_type"]
        table["torch.tensor", "_rebuild_from_type_v2"] = table["torch._tensor", "_rebuild_from_type_v2"]
        table.update(CONTAINERS)
        return table

    def _tensor_v1(self, args: tuple[Any, ...]) -> Any:
        return self._dense(args, 4, "torch._utils._rebuild_tensor") if len(args) == 4 else NOT_MINE

    def _tensor_v2(self, args: tuple[Any, ...]) -> Any:
        if len(args) not in (6, 7):
            return NOT_MINE
        return self._dense(args, 6, "torch._utils._rebuild_tensor_v2")

    def _tensor_v3(self, args: tuple[Any, ...]) -> Any:
        if len(args) not in (7, 8) or type(args[6]) is not Named:
            return NOT_MINE
        dtype = _torch_dtype(args[6])
        return NOT_MINE if dtype is None else self._dense(args, 7, "torch._utils._rebuild_tensor_v3", dtype)

    def _dense(self, args: tuple[Any, ...], plain: int, form: str, dtype: DType | None = None) -> Any:
        storage, offset, size, stride = args[0], args[1], sizes(args[2]), sizes(args[3])
        if type(storage) is not StorageRef:
            return NOT_MINE
        if type(offset) is not int or size is None or stride is None:
            self._problem("invalid-shape", "a tensor whose offset, size or stride is not made of integers")
            return NOT_MINE
        grad = len(args) > 4 and args[4] is True
        kept = storage.dtype if dtype is None else dtype
        tensor = Tensor(kept, size, stride, storage.start + offset, storage.index, grad, form=form)
        if len(args) > plain or (len(args) > 5 and not _empty(args[5])):
            return TensorOf(tensor, self._call("torch._utils", form.rpartition(".")[2], args), [])
        return tensor

    def _wrapper(self, name: str, least: int, most: int) -> Reducer:
        """A call whose first argument is the tensor itself: Parameters and device copies."""

        def reduce(args: tuple[Any, ...]) -> Any:
            if not least <= len(args) <= most or not is_tensor(args[0]):
                return NOT_MINE
            grad = args[1] is True if name.startswith("_rebuild_parameter") else args[-1] is True
            inner = bare(args[0])
            call = self._call("torch._utils", name, args)
            outer = _like(inner, requires_grad=grad, form=f"torch._utils.{name}")
            return TensorOf(outer, call, [("data", args[0])])

        return reduce

    def _quantized(self, args: tuple[Any, ...]) -> Any:
        if len(args) not in (6, 7) or type(args[0]) is not StorageRef:
            return NOT_MINE
        size, stride = sizes(args[2]), sizes(args[3])
        if type(args[1]) is not int or size is None or stride is None or type(args[4]) is not tuple:
            return NOT_MINE
        dtype = self.storages[args[0].index - self.first].dtype
        tensor = Tensor(
            dtype,
            size,
            stride,
            args[1],
            args[0].index,
            args[5] is True,
            "quantized",
            "torch._utils._rebuild_qtensor",
        )
        parts = [(f"quantizer[{i}]", part) for i, part in enumerate(args[4]) if is_tensor(part)]
        return TensorOf(tensor, self._call("torch._utils", "_rebuild_qtensor", args), parts)

    def _sparse(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 2 or type(args[1]) is not tuple:
            return NOT_MINE
        layout = _layout_name(args[0])
        data = args[1]
        names = ("indices", "values") if layout == "sparse_coo" else ("compressed", "plain", "values")
        if layout is None or len(data) < len(names) + 1:
            return NOT_MINE
        size = sizes(data[len(names)])
        if size is None or not all(is_tensor(t) for t in data[: len(names)]):
            return NOT_MINE
        values = bare(data[len(names) - 1])
        tensor = Tensor(values.dtype, size, (), 0, None, False, layout, "torch._utils._rebuild_sparse_tensor")
        return TensorOf(
            tensor,
            self._call("torch._utils", "_rebuild_sparse_tensor", args),
            list(zip(names, data, strict=False)),
        )

    def _nested(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 4 or not all(is_tensor(t) for t in args):
            return NOT_MINE
        names = ("buffer", "sizes", "strides", "offsets")
        buffer = bare(args[0])
        form = "torch._utils._rebuild_nested_tensor"
        tensor = Tensor(buffer.dtype, buffer.shape, (), 0, None, False, "nested", form)
        return TensorOf(
            tensor,
            self._call("torch._utils", "_rebuild_nested_tensor", args),
            list(zip(names, args, strict=True)),
        )

    def _jagged(self, args: tuple[Any, ...]) -> Any:
        found = tensors_in(args)
        if not found:
            return NOT_MINE
        values = bare(found[0][1])
        module, name = "torch.nested._internal.nested_tensor", "_rebuild_njt"
        tensor = Tensor(values.dtype, values.shape, (), 0, None, False, "jagged", f"{module}.{name}")
        return TensorOf(tensor, self._call(module, name, args), found)

    def _meta(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 4 or type(args[0]) is not Named:
            return NOT_MINE
        dtype, size, stride = _torch_dtype(args[0]), sizes(args[1]), sizes(args[2])
        if dtype is None or size is None or stride is None:
            return NOT_MINE
        form = "torch._utils._rebuild_meta_tensor_no_storage"
        tensor = Tensor(dtype, size, stride, 0, None, args[3] is True, "meta", form)
        return TensorOf(tensor, self._call("torch._utils", "_rebuild_meta_tensor_no_storage", args), [])

    def _wrapper_subclass(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 8 or type(args[1]) is not Named:
            return NOT_MINE
        dtype, size, stride = _torch_dtype(args[1]), sizes(args[2]), sizes(args[3])
        if dtype is None or size is None or stride is None:
            return NOT_MINE
        form = "torch._utils._rebuild_wrapper_subclass"
        tensor = Tensor(dtype, size, stride, 0, None, args[7] is True, "subclass", form)
        return TensorOf(tensor, self._call("torch._utils", "_rebuild_wrapper_subclass", args), [])

    def _from_type(self, args: tuple[Any, ...]) -> Any:
        """``(function, type, its arguments, state)``: a subclass, or a tensor with Python attributes."""
        if len(args) != 4 or type(args[0]) is not Named or type(args[2]) is not tuple:
            return NOT_MINE
        reducer = self.reducers.get((args[0].module, args[0].name))
        inner = NOT_MINE if reducer is None else reducer(args[2])
        if not is_tensor(inner):
            return NOT_MINE
        args[0].calls += 1
        self._check_state(args[3])
        outer = bare(inner)
        parts = list(inner.parts) if type(inner) is TensorOf else []
        parts += [(name, part) for name, part in tensors_in(args[3]) if all(part is not p for _, p in parts)]
        layout = "dtensor" if type(args[1]) is Named and args[1].name == "DTensor" else outer.layout
        form = "torch._tensor._rebuild_from_type_v2"
        shown = _like(outer, requires_grad=outer.requires_grad, form=form, layout=layout)
        return TensorOf(shown, self._call("torch._tensor", "_rebuild_from_type_v2", args), parts)

    def _check_state(self, state: Any) -> None:
        # torch sets each item of the state as an attribute, ``__class__`` included.
        for mapping in (state,) if type(state) is DictOf else state[:2] if type(state) is tuple else ():
            if type(mapping) is not DictOf:
                continue
            # One state may belong to every tensor of the file: only what is new in it is looked at.
            _, done = self._checked.get(id(mapping), (mapping, 0))
            self._checked[id(mapping)] = (mapping, len(mapping.flat))
            for name in mapping.flat[done::2]:
                if type(name) is str and name.startswith("__") and name.endswith("__"):
                    self._problem("build-hazard", f"a tensor's attribute {name} is set from the file")

    def _call(self, module: str, name: str, args: tuple[Any, ...]) -> CallOf:
        key = f"{module}.{name}"
        target = self._globals.get(key)
        if target is None:
            target = self._globals[key] = Named(module, name, 0)
        return CallOf("REDUCE", target, args)


# --- plain containers ------------------------------------------------------------------------------------


def _ordered_dict(args: tuple[Any, ...]) -> Any:
    """``OrderedDict()``, or ``OrderedDict([[key, value], …])`` as Python 2 wrote it."""
    result = DictOf("OrderedDict")
    if not args:
        return result
    if len(args) != 1 or type(args[0]) is not ListOf:
        return NOT_MINE
    for pair in args[0].items:
        both = pair.items if type(pair) is ListOf else pair
        if type(both) not in (list, tuple) or len(both) != 2:
            return NOT_MINE
        result.flat.extend(both)
    return result


def _counter(args: tuple[Any, ...]) -> Any:
    if len(args) == 1 and type(args[0]) is DictOf:
        result = DictOf("Counter")
        result.flat = list(args[0].flat)
        return result
    if len(args) == 1 and type(args[0]) is str:
        return CallOf("REDUCE", Named("collections", "Counter", 0), args)
    return NOT_MINE if args else DictOf("Counter")


def _default_dict(args: tuple[Any, ...]) -> Any:
    ok = not args or (len(args) == 1 and (args[0] is None or type(args[0]) is Named))
    return DictOf("defaultdict", args) if ok else NOT_MINE


def _collection(kind: str) -> Reducer:
    def reduce(args: tuple[Any, ...]) -> Any:
        if not args:
            return ListOf(kind, [])
        if type(args[0]) is not ListOf or (len(args) > 1 and kind != "deque"):
            return NOT_MINE
        return ListOf(kind, list(args[0].items)) if len(args) == 1 else NOT_MINE

    return reduce


def _encode(args: tuple[Any, ...]) -> Any:
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        return NOT_MINE
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError:
        return NOT_MINE


def _no_bytes(args: tuple[Any, ...]) -> Any:
    """``bytes()``: how protocols 0 to 2 write the empty byte string."""
    return NOT_MINE if args else b""


def _complex(args: tuple[Any, ...]) -> Any:
    return complex(*args) if len(args) == 2 and all(type(x) is float for x in args) else NOT_MINE


def _kept(module: str, name: str, fits: Callable[[tuple[Any, ...]], bool]) -> Reducer:
    """A call that stays a call in the tree and is what a writer of plain data makes of it."""
    target = Named(module, name, 0)

    def reduce(args: tuple[Any, ...]) -> Any:
        return CallOf("REDUCE", target, args) if fits(args) else NOT_MINE

    return reduce


def _one_text(args: tuple[Any, ...]) -> bool:
    return bool(args) and type(args[0]) is str and all(type(x) is int for x in args[1:])


def _bytes_of(args: tuple[Any, ...]) -> bool:
    if len(args) == 2:
        return type(args[0]) is str and args[1] in ("latin-1", "latin1")
    return not args or (len(args) == 1 and type(args[0]) in (bytes, BytesAt))


def _three_numbers(args: tuple[Any, ...]) -> bool:
    return len(args) == 3 and all(x is None or type(x) is int for x in args)


def _is_method_of_a_project(args: tuple[Any, ...]) -> bool:
    """``getattr(Class, 'name')``: how pickle spells a method, or a nested class, of a class that needs code."""
    if len(args) != 2 or type(args[0]) is not Named or type(args[1]) is not str:
        return False
    cls, name = args
    return name.isidentifier() and not name.startswith("_") and standing(cls.module, cls.name) == "needs-code"


CONTAINERS: dict[tuple[str, str], Reducer] = {
    ("builtins", "getattr"): _kept("builtins", "getattr", _is_method_of_a_project),
    ("__builtin__", "getattr"): _kept("__builtin__", "getattr", _is_method_of_a_project),
    ("torch", "Size"): _kept("torch", "Size", lambda args: len(args) == 1 and sizes(args[0]) is not None),
    ("torch", "device"): _kept("torch", "device", _one_text),
    ("torch.serialization", "_get_layout"): _kept("torch.serialization", "_get_layout", _one_text),
    ("builtins", "bytearray"): _kept("builtins", "bytearray", _bytes_of),
    ("__builtin__", "bytearray"): _kept("__builtin__", "bytearray", _bytes_of),
    ("builtins", "slice"): _kept("builtins", "slice", _three_numbers),
    ("builtins", "range"): _kept("builtins", "range", _three_numbers),
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _counter,
    ("collections", "defaultdict"): _default_dict,
    ("collections", "deque"): _collection("deque"),
    ("builtins", "set"): _collection("set"),
    ("builtins", "frozenset"): _collection("frozenset"),
    ("__builtin__", "set"): _collection("set"),
    ("__builtin__", "frozenset"): _collection("frozenset"),
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "complex"): _complex,
    ("__builtin__", "complex"): _complex,
}
"""Calls that stand for plain data. Each applies only where the arguments are exactly what pickle writes."""


# --- small readers ---------------------------------------------------------------------------------------


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


def _like(tensor: Tensor, *, requires_grad: bool, form: str, layout: str | None = None) -> Tensor:
    kept = tensor.layout if layout is None else layout
    return Tensor(
        tensor.dtype, tensor.shape, tensor.stride, tensor.offset, tensor.storage, requires_grad, kept, form
    )


def _storage_dtype(cls: Any) -> DType | None:
    if type(cls) is not Named or cls.module not in _STORAGE_MODULES:
        return None
    return STORAGE_CLASSES.get(cls.name)


def _torch_dtype(name: Named) -> DType | None:
    return dtype_of(name.name) if name.module == "torch" else None


def _layout_name(obj: Any) -> str | None:
    """``torch.serialization._get_layout('torch.sparse_coo')``, or the name itself."""
    if type(obj) is CallOf and obj.target.name == "_get_layout" and len(obj.args) == 1:
        obj = obj.args[0]
    if type(obj) is Named:
        obj = obj.name
    if type(obj) is not str:
        return None
    name = obj.removeprefix("torch.")
    return name if name in _LAYOUTS else None


def _view_of(view: Any, numel: int) -> tuple[int, int]:
    """A legacy storage view ``(key, offset, size)``: where it starts and how many elements it has."""
    if type(view) is tuple and len(view) == 3 and type(view[1]) is int and type(view[2]) is int:
        return view[1], view[2]
    return 0, numel


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _empty(obj: Any) -> bool:
    return obj is None or (type(obj) is DictOf and not obj.flat and obj.state is None)


def _short(value: Any) -> str:
    if type(value) in (str, int, float):
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "…"
    return f"<{type(value).__name__}>"


__all__ = ["CONTAINERS", "TorchValues", "bare", "is_tensor", "sizes", "tensors_in"]
