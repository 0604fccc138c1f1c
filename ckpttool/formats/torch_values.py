"""What torch's rebuild functions mean, told from their arguments without calling them.

Sources: torch 2.13 ``torch/_utils.py`` and ``torch/_tensor.py`` (``_rebuild_*``), ``torch/serialization.py``
(persistent ids), ``torch/_weights_only_unpickler.py``. Old spellings are read too: ``torch.tensor`` up to 1.12.
"""

from __future__ import annotations

from typing import Any

from ckpttool.dtypes import BYTE, PACKED_STORAGES, DType
from ckpttool.formats.pickle_terms import NOT_MINE, Problem, Reducer
from ckpttool.formats.plain_values import CONTAINERS
from ckpttool.formats.stack import CallOf, DictOf, Named, StorageRef, TensorOf
from ckpttool.formats.stand_ins import (
    bare,
    is_count,
    is_empty,
    is_tensor,
    layout_name,
    like,
    short,
    sizes,
    storage_dtype,
    tensors_in,
    torch_dtype,
    view_of,
)
from ckpttool.model import Storage, Tensor


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
        dtype = storage_dtype(cls)
        if dtype is None or type(key) not in (str, int) or type(location) is not str or not is_count(numel):
            return self._bad_storage(cls, key, location, numel)
        packed = cls.name in PACKED_STORAGES
        nbytes = numel if packed else numel * dtype.itemsize
        index = self.register(str(key), dtype, nbytes, location)
        view = pid[5] if len(pid) == 6 else None
        start, numel = view_of(view, numel)
        return StorageRef(index, BYTE if packed else dtype, numel, nbytes, start)

    def register(self, key: str, dtype: DType, nbytes: int, location: str) -> int:
        """The index of a storage, declared once more; a declaration that differs is a problem."""
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
        known = type(cls) is Named and storage_dtype(cls) is not None
        detail = f"class {name}, element count {short(numel)}"
        self._problem("storage-declaration" if known else "storage-class", f"storage {short(key)}: {detail}")
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
        dtype = torch_dtype(args[6])
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
        if len(args) > plain or (len(args) > 5 and not is_empty(args[5])):
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
            outer = like(inner, requires_grad=grad, form=f"torch._utils.{name}")
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
            dtype, size, stride, args[1], args[0].index, args[5] is True, "quantized", "torch._utils._rebuild_qtensor"
        )
        parts = [(f"quantizer[{i}]", part) for i, part in enumerate(args[4]) if is_tensor(part)]
        return TensorOf(tensor, self._call("torch._utils", "_rebuild_qtensor", args), parts)

    def _sparse(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 2 or type(args[1]) is not tuple:
            return NOT_MINE
        layout = layout_name(args[0])
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
            tensor, self._call("torch._utils", "_rebuild_sparse_tensor", args), list(zip(names, data, strict=False))
        )

    def _nested(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 4 or not all(is_tensor(t) for t in args):
            return NOT_MINE
        names = ("buffer", "sizes", "strides", "offsets")
        buffer = bare(args[0])
        form = "torch._utils._rebuild_nested_tensor"
        tensor = Tensor(buffer.dtype, buffer.shape, (), 0, None, False, "nested", form)
        return TensorOf(
            tensor, self._call("torch._utils", "_rebuild_nested_tensor", args), list(zip(names, args, strict=True))
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
        dtype, size, stride = torch_dtype(args[0]), sizes(args[1]), sizes(args[2])
        if dtype is None or size is None or stride is None:
            return NOT_MINE
        form = "torch._utils._rebuild_meta_tensor_no_storage"
        tensor = Tensor(dtype, size, stride, 0, None, args[3] is True, "meta", form)
        return TensorOf(tensor, self._call("torch._utils", "_rebuild_meta_tensor_no_storage", args), [])

    def _wrapper_subclass(self, args: tuple[Any, ...]) -> Any:
        if len(args) != 8 or type(args[1]) is not Named:
            return NOT_MINE
        dtype, size, stride = torch_dtype(args[1]), sizes(args[2]), sizes(args[3])
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
        shown = like(outer, requires_grad=outer.requires_grad, form=form, layout=layout)
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
