"""Tensors as torch rebuilds them under ``weights_only``: their elements stay where they are, classes around them go."""

from __future__ import annotations

from dataclasses import replace

from ckpttool import draft
from ckpttool.dtypes import BYTE, STORAGE_CLASSES
from ckpttool.editing import Editor
from ckpttool.expressions import Form, Leaf
from ckpttool.model import Call, Global, Mapping, Node, Sequence, Tensor, Value
from ckpttool.repairing.plain.allowed import is_allowed
from ckpttool.repairing.plain.made import Made, described
from ckpttool.safety import canonical

NUMPY = "numpy._core.multiarray._reconstruct"
RAW = "storage"
PARAMETER = "torch._utils._rebuild_parameter"
V2, V3 = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
DEVICE = "torch._utils._rebuild_device_tensor_from_cpu_tensor"
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"

_CLASSES = {dtype.name for dtype in STORAGE_CLASSES.values()}
_PLAIN_TYPES = (("torch", "Tensor"), ("torch.nn.parameter", "Parameter"))


def of_tensor(editor: Editor, node: Tensor) -> Made:
    """What a tensor becomes. ``Made.node`` keeps its geometry wherever that is a dense one."""
    if node.form == NUMPY:
        return _array(editor, node)
    if node.form == RAW:
        return _raw(editor, node)
    if node.call is None:
        return Made(node)
    call = editor.nodes[node.call]
    if not isinstance(call, Call):
        return described("a tensor without the call that rebuilds it")
    if node.form in (V2, V3):
        return _with_hooks(editor, node, call)
    if node.form == PARAMETER:
        # The function that makes it takes hooks too, which are for training alone.
        return Made(node) if _no_hooks(editor, call.args[-1]) or not _is_dense(node) else _bare(node, PARAMETER)
    if node.form == "torch._utils._rebuild_parameter_with_state":
        harmless = is_harmless(editor, call.args[3]) and _no_hooks(editor, call.args[2])
        return Made(node) if harmless else _dropped(node, PARAMETER)
    if node.form == DEVICE:
        return Made(call.args[0], "a tensor of another device", "a tensor of the CPU")
    if node.form == FROM_TYPE:
        return _typed(editor, node, call)
    return _other(editor, node, call)


def _is_dense(node: Tensor) -> bool:
    return node.layout in ("strided", "dtensor") and node.storage is not None


def _bare(node: Tensor, form: str) -> Made:
    return Made(replace(node, form=form, call=None, parts=(), layout="strided"))


def _dropped(node: Tensor, form: str) -> Made:
    """The tensor without its Python attributes."""
    if not _is_dense(node):
        return described("a tensor with attributes")
    return replace(_bare(node, form), what="a tensor's attributes", into="the tensor alone")


def _of_storage(editor: Editor, node: Tensor) -> str:
    """The function that rebuilds a dense tensor in its storage."""
    assert node.storage is not None
    same = editor.storages[node.storage].dtype == node.dtype
    return V2 if node.dtype.name in _CLASSES and same else V3


# --- numpy and storages --------------------------------------------------------------------------------------


def _array(editor: Editor, node: Tensor) -> Made:
    """A numpy array as a tensor of the same bytes."""
    assert node.storage is not None
    storage = editor.storages[node.storage]
    typed = node.dtype.name in _CLASSES
    fresh = replace(storage, key=editor.fresh_key(), dtype=node.dtype if typed else BYTE, record="")
    made = replace(node, form=V2 if typed else V3, call=None)
    if storage.swapped and not typed:
        # Bytes without a type are not turned when they are written: the tensor is computed instead.
        form = Form(node.dtype, node.shape)
        editor.contents[node.storage] = draft.Made(Leaf("array"), (draft.Input("array", node, storage),), form)
        fresh = replace(fresh, swapped=False, checksum=None)
        made = replace(made, stride=_row_major(node.shape))
    editor.storages[node.storage] = fresh
    return Made(made, "a numpy array", "a tensor")


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _raw(editor: Editor, node: Tensor) -> Made:
    """A storage in the tree; part of one (torch before 1.6) is a tensor of its elements."""
    if node.storage is None:
        return described("a storage that is not there")
    length = node.shape[0] if node.shape else 0
    width = max(1, node.dtype.itemsize)
    if not node.offset and length * width == editor.storages[node.storage].nbytes:
        return Made(node)
    return Made(replace(node, form=_of_storage(editor, node)), "part of a storage", "a tensor")


# --- calls around tensors ------------------------------------------------------------------------------------


def _with_hooks(editor: Editor, node: Tensor, call: Call) -> Made:
    """A dense tensor with backward hooks, or with bits that say conjugate or negative: those stay."""
    plain = 6 if node.form == V2 else 7
    extra = editor.nodes[call.args[plain]] if len(call.args) > plain else None
    hooked = not _no_hooks(editor, call.args[5])
    if not isinstance(extra, Mapping) or not extra.keys:
        bare = _bare(node, node.form)
        return replace(bare, what="a tensor's hooks", into="the tensor alone") if hooked else bare
    if not hooked and is_harmless(editor, call.args[plain]):
        return Made(node)
    empty = editor.put(Mapping("OrderedDict", (), ()))
    args = (*call.args[:5], empty, *call.args[6:])
    return Made(replace(node, call=editor.put(replace(call, args=args))), "a tensor's hooks", "the tensor alone")


def _no_hooks(editor: Editor, index: int) -> bool:
    node = editor.nodes[index]
    empty = isinstance(node, Mapping) and not node.keys and node.state is None
    return empty or (isinstance(node, Value) and node.value is None)


def _typed(editor: Editor, node: Tensor, call: Call) -> Made:
    """A subclass, or a tensor with Python attributes: attributes stay where they are plain data."""
    function, cls = editor.nodes[call.args[0]], editor.nodes[call.args[1]]
    assert isinstance(function, Global)
    assert isinstance(cls, Global)
    named = (cls.module, cls.name)
    if named in _PLAIN_TYPES and is_harmless(editor, call.args[3]) and _may_call(editor, call):
        old = (call.module, call.name) != ("torch._tensor", "_rebuild_from_type_v2")
        return _renamed(editor, node, call, "torch._tensor", "_rebuild_from_type_v2") if old else Made(node)
    what = "a tensor's attributes" if named in _PLAIN_TYPES else cls.dotted
    if _is_dense(node) and not node.parts:
        return replace(_bare(node, _of_storage(editor, node)), what=what, into="the tensor alone")
    whole = _whole_part(editor, node)
    if whole is not None:
        return Made(whole, what, "its local tensor, which is all of it")
    pairs = [(name, index) for name, index in node.parts]
    if _is_dense(node):
        inner = _bare(node, _of_storage(editor, node)).node
        pairs.insert(0, ("data", editor.put(inner) if not isinstance(inner, int) else inner))
    return _parts(editor, pairs, what)


def _whole_part(editor: Editor, node: Tensor) -> int | None:
    """The local tensor of a distributed one that has the shape of the whole: it was replicated, or alone."""
    if node.layout != "dtensor" or len(node.parts) != 1:
        return None
    local = editor.nodes[node.parts[0][1]]
    same = isinstance(local, Tensor) and (local.shape, local.dtype) == (node.shape, node.dtype)
    return node.parts[0][1] if same else None


def _may_call(editor: Editor, call: Call) -> bool:
    """Whether the function that rebuilds the data, with its own arguments, is one that needs no further look."""
    function = editor.nodes[call.args[0]]
    return isinstance(function, Global) and f"{function.module}.{function.name}" in (V2, V3)


def _other(editor: Editor, node: Tensor, call: Call) -> Made:
    """Sparse, nested, quantized and the like: kept where torch itself rebuilds them, else taken apart."""
    module, name = canonical(call.module, call.name)
    if name == "_rebuild_sparse_csr_tensor":
        return _renamed(editor, node, call, "torch._utils", "_rebuild_sparse_tensor")
    kept = name not in ("_rebuild_wrapper_subclass", "_rebuild_njt") and is_allowed(module, name)
    if not kept:
        return _parts(editor, list(node.parts), f"{module}.{name}")
    return Made(node) if (module, name) == (call.module, call.name) else _renamed(editor, node, call, module, name)


def _renamed(editor: Editor, node: Tensor, call: Call, module: str, name: str) -> Made:
    again = editor.put(replace(call, how="REDUCE", module=module, name=name))
    return Made(replace(node, call=again), call.dotted, f"{module}.{name}, as it is called today")


def _parts(editor: Editor, pairs: list[tuple[str, int]], what: str) -> Made:
    if not pairs:
        return described(what)
    keys = tuple(editor.value(name) for name, _ in pairs)
    return Made(Mapping("dict", keys, tuple(index for _, index in pairs)), what, "a dict of its tensors")


# --- attributes ----------------------------------------------------------------------------------------------

FEW = 10_000
"""Values of a tensor's attributes that are looked at."""


def is_harmless(editor: Editor, index: int) -> bool:
    """Whether attributes are plain data that stays as it is, under names that Python itself does not use."""
    top = editor.nodes[index]
    halves = top.items if isinstance(top, Sequence) and top.kind == "tuple" else (index,)
    names = [editor.nodes[key] for half in halves if isinstance(m := editor.nodes[half], Mapping) for key in m.keys]
    texts = [name.value for name in names if isinstance(name, Value)]
    if len(texts) != len(names) or not all(isinstance(t, str) and not t.startswith("__") for t in texts):
        return False
    return _is_plain(editor, index)


def _is_plain(editor: Editor, index: int) -> bool:
    stack, seen = [index], {index}
    while stack:
        if len(seen) > FEW:
            return False
        below = _below(editor.nodes[stack.pop()])
        if below is None:
            return False
        fresh = [one for one in below if one not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return True


def _below(node: Node) -> tuple[int, ...] | None:
    """What a plain value holds; None for anything else."""
    if isinstance(node, Value):
        return () if node.call is None else None
    if isinstance(node, Mapping) and node.kind in ("dict", "OrderedDict") and node.state is None:
        return (*node.keys, *node.values)
    if isinstance(node, Sequence) and node.kind in ("list", "tuple") and node.state is None:
        return node.items
    if isinstance(node, Tensor) and node.form in (V2, V3) and node.call is None:
        return ()
    return None
