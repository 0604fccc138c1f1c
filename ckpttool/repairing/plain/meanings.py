"""Calls that mean something by themselves: sizes, devices, ranges, tensors of torch 0.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ckpttool.editing import Editor
from ckpttool.model import Call, Global, Node, Sequence, Tensor, Value
from ckpttool.repairing.plain.made import Made, dict_of
from ckpttool.safety import standing

_DEVICES = frozenset("cpu cuda mps xpu xla hpu mtia ipu vulkan meta hip npu privateuseone".split())

Reader: TypeAlias = "Callable[[Editor, Call], Made | None]"
"""What a call becomes; None where its arguments are none that a writer gives it."""


def _numbers(editor: Editor, node: Call) -> Made | None:
    """``torch.Size``, as it is."""
    inner = editor.nodes[node.args[0]] if len(node.args) == 1 else None
    if not isinstance(inner, Sequence) or inner.kind not in ("tuple", "list"):
        return None
    values = [editor.nodes[index] for index in inner.items]
    fits = all(isinstance(v, Value) and type(v.value) is int and -(1 << 63) <= v.value < 1 << 63 for v in values)
    return Made(Call("REDUCE", "torch", "Size", node.args)) if fits else None


def _device(editor: Editor, node: Call) -> Made | None:
    values = [editor.nodes[index] for index in node.args]
    plain = [v.value for v in values if isinstance(v, Value)]
    if not plain or len(plain) != len(values) or len(plain) > 2 or not isinstance(plain[0], str):
        return None
    kind, colon, number = plain[0].partition(":")
    counted = not colon or (number.isascii() and number.isdecimal() and int(number[:4]) < 128)
    indexed = len(plain) == 1 or (type(plain[1]) is int and 0 <= plain[1] < 128 and not colon)
    return Made(Call("REDUCE", "torch", "device", node.args)) if kind in _DEVICES and counted and indexed else None


def _layout(editor: Editor, node: Call) -> Made | None:
    value = editor.nodes[node.args[0]] if len(node.args) == 1 else None
    text = value.value if isinstance(value, Value) else None
    known = isinstance(text, str) and text.startswith(("torch.sparse_", "torch.strided", "torch.jagged"))
    return Made(Call("REDUCE", "torch.serialization", "_get_layout", node.args)) if known else None


def _bytearray(editor: Editor, node: Call) -> Made | None:
    nodes = [editor.nodes[index] for index in node.args]
    if len(nodes) == 2 and all(isinstance(n, Value) and isinstance(n.value, str) for n in nodes):
        return Made(Call("REDUCE", "builtins", "bytearray", node.args))
    is_bytes = not nodes or (len(nodes) == 1 and not isinstance(nodes[0], Value)) or (
        len(nodes) == 1 and isinstance(nodes[0], Value) and isinstance(nodes[0].value, bytes)
    )  # fmt: skip
    return Made(Call("REDUCE", "builtins", "bytearray", node.args)) if is_bytes else None


def _range(editor: Editor, node: Call) -> Made | None:
    if len(node.args) != 3:
        return None
    pairs = zip(("start", "stop", "step"), node.args, strict=True)
    found = dict_of([(editor.value(key), value) for key, value in pairs])
    return Made(found, f"a {node.name.removeprefix('x')}", "a dict")


def _first(editor: Editor, node: Call) -> Made | None:
    return Made(node.args[0], node.dotted, "what it holds") if node.args else None


def _attribute(editor: Editor, node: Call) -> Made | None:
    """``getattr(Class, 'name')``: an enum's member, a method or a nested class of a project."""
    if len(node.args) != 2:
        return None
    cls, name = (editor.nodes[index] for index in node.args)
    if not isinstance(cls, Global) or not isinstance(name, Value) or not isinstance(name.value, str):
        return None
    if standing(cls.module, cls.name) != "needs-code":
        return None
    return Made(Value(f"{cls.dotted}.{name.value}"), cls.dotted, "its name as text", "describe")


def _entries_alone(editor: Editor, node: Call) -> Made | None:
    """A defaultdict whose arguments are none that Python writes: its entries are data all the same."""
    pairs = list(zip(node.keys, node.values, strict=True))
    return Made(dict_of(pairs), node.dotted, "a dict") if pairs else None


def _bounded(editor: Editor, node: Call) -> Made | None:
    """A deque of limited length: ``deque((), 5)``, its items appended."""
    first = editor.nodes[node.args[0]] if node.args else None
    given = first.items if isinstance(first, Sequence) else ()
    fits = len(node.args) == 2 and isinstance(first, Sequence)
    return Made(Sequence("list", (*given, *node.items)), "a deque", "a list") if fits else None


def _old_tensor(editor: Editor, node: Call) -> Made | None:
    """A tensor of torch 0.1: an object whose state is its storage, offset, size and stride."""
    state = None if node.state is None else editor.nodes[node.state]
    if not isinstance(state, Sequence) or len(state.items) != 4:
        return None
    storage, offset, size, stride = (editor.nodes[index] for index in state.items)
    start = offset.value if isinstance(offset, Value) else None
    if not isinstance(storage, Tensor) or storage.form != "storage" or type(start) is not int:
        return None
    shape, steps = _ints(editor, size), _ints(editor, stride)
    if shape is None or steps is None:
        return None
    form = "torch._utils._rebuild_tensor_v2"
    made = Tensor(storage.dtype, shape, steps, storage.offset + start, storage.storage, form=form)
    return Made(made, node.dotted, "a tensor as torch writes it today")


def _ints(editor: Editor, node: Node) -> tuple[int, ...] | None:
    items = node.items if isinstance(node, Sequence) else None
    if items is None and isinstance(node, Call) and node.name == "Size" and len(node.args) == 1:
        inner = editor.nodes[node.args[0]]
        items = inner.items if isinstance(inner, Sequence) else None
    if items is None:
        return None
    values = [editor.nodes[index] for index in items]
    found = tuple(v.value for v in values if isinstance(v, Value) and type(v.value) is int)
    return found if len(found) == len(values) else None


_KINDS = "BFloat16 Bool Byte Char Double Float Half Int Long Short".split()

MEANINGS: dict[tuple[str, str], Reader] = {
    ("torch", "Size"): _numbers,
    ("torch", "device"): _device,
    ("torch.serialization", "_get_layout"): _layout,
    ("builtins", "bytearray"): _bytearray,
    ("builtins", "slice"): _range,
    ("builtins", "range"): _range,
    ("builtins", "xrange"): _range,
    ("builtins", "getattr"): _attribute,
    ("collections", "defaultdict"): _entries_alone,
    ("collections", "deque"): _bounded,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._utils", "_rebuild_xla_tensor"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "tensor", "double", "bool")},
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{(home, f"{kind}Tensor"): _old_tensor for home in ("torch", "torch.cuda") for kind in _KINDS},
}
