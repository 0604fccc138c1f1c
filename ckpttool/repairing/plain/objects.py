"""Objects of any class as plain data: their attributes as a dict, their items as a list, their value."""

from __future__ import annotations

from collections.abc import Callable

from ckpttool.editing import Editor
from ckpttool.model import Call, Global, Mapping, Node, Sequence, Tensor, Value
from ckpttool.repairing.plain.allowed import is_allowed
from ckpttool.repairing.plain.made import Made, described, removed
from ckpttool.repairing.plain.numpy_rest import of_numpy
from ckpttool.repairing.plain.standard import pairs_of, text_of
from ckpttool.safety import canonical, may_be_called, standing

_DEVICES = frozenset("cpu cuda mps xpu xla hpu mtia ipu vulkan meta hip npu privateuseone".split())


def of_call(editor: Editor, node: Call) -> Made:
    """What an object becomes. Objects that torch builds stay; of classes that nobody should load a text is left."""
    if node.how == "PERSID":
        return removed("a persistent id that is no storage")
    module, name = canonical(node.module, node.name)
    special = _SPECIAL.get((module, name))
    made = None if special is None else special(editor, node)
    if made is not None:
        return made
    text = text_of(editor.nodes, module, node)
    if text is not None:
        return Made(Value(text), f"{module}.{name}", "text")
    made = of_numpy(editor, module, node)
    return _by_standing(editor, node, module, name) if made is None else made


def of_name(node: Global) -> Made:
    """What a class or function becomes that is named and not called."""
    if is_allowed(node.module, node.name):
        return Made(node)
    module, name = canonical(node.module, node.name)
    if is_allowed(module, name):
        return Made(Global(module, name), node.dotted, f"{module}.{name}, as it is called today")
    unsafe = standing(node.module, node.name) == "unsafe"
    return (
        removed(node.dotted)
        if unsafe
        else Made(Value(node.dotted), node.dotted, "its name as text", "describe")
    )


def _by_standing(editor: Editor, node: Call, module: str, name: str) -> Made:
    cls = _class_of(editor, node)
    if cls is None and may_be_called(module, name) in ("as torch does", "never"):
        return described(f"{node.dotted} with arguments that torch does not write")
    dotted = node.dotted if cls is None else cls.dotted
    judged = standing(module, name) if cls is None else standing(cls.module, cls.name)
    # ``object`` and the builtin containers are what old pickles name beside the class itself.
    if judged == "unsafe":
        return removed(dotted)
    return _attributes(editor, node, dotted)


def _class_of(editor: Editor, node: Call) -> Global | None:
    """The class that ``copyreg._reconstructor(class, base, state)`` makes an object of."""
    if canonical(node.module, node.name) != ("copyreg", "_reconstructor") or not node.args:
        return None
    cls = editor.nodes[node.args[0]]
    return cls if isinstance(cls, Global) else None


# --- objects of any class ------------------------------------------------------------------------------------


def _attributes(editor: Editor, node: Call, dotted: str) -> Made:
    """An object by what pickle set on it: entries, items, attributes; else what it was called with."""
    nodes = editor.nodes
    state = None if node.state is None else nodes[node.state]
    pairs = pairs_of(nodes, state)
    inner = _wrapped(editor, dotted, pairs or [])
    if inner is not None:
        return Made(inner, dotted, "what it holds")
    if pairs is None and state is not None and not (isinstance(state, Value) and state.value is None):
        pairs = [(editor.value("state"), node.state or 0)]
    if node.keys:
        return _entries(editor, node, pairs or [], dotted)
    if node.items:
        items = Sequence("list", node.items)
        if not pairs:
            return Made(items, dotted, "a list")
        return Made(_dict([(editor.value("items"), editor.put(items)), *pairs]), dotted, "a dict")
    if pairs is not None:
        return Made(_dict(pairs), dotted, "a dict of its attributes")
    return _arguments(editor, node, dotted)


def _entries(editor: Editor, node: Call, pairs: list[tuple[int, int]], dotted: str) -> Made:
    entries = list(zip(node.keys, node.values, strict=True))
    if node.items:
        entries.append((editor.value("items"), editor.put(Sequence("list", node.items))))
    known = {_face(editor.nodes[key]) for key, _ in entries}
    entries += [(key, value) for key, value in pairs if _face(editor.nodes[key]) not in known]
    return Made(_dict(entries), dotted, "a dict")


def _face(node: Node) -> object:
    return (type(node.value), node.value) if isinstance(node, Value) else node


def _dict(pairs: list[tuple[int, int]]) -> Mapping:
    return Mapping("dict", tuple(key for key, _ in pairs), tuple(value for _, value in pairs))


def _arguments(editor: Editor, node: Call, dotted: str) -> Made:
    """An object without attributes: an enum's member, a tuple with names, what a function of a project makes."""
    args = node.args[2:] if node.name == "_reconstructor" else node.args
    args = args[:-1] if node.how == "NEWOBJ_EX" else args
    if not args:
        return described(dotted)
    if len(args) == 1:
        return Made(args[0], dotted, "its value")
    if node.how.startswith("NEWOBJ"):
        return Made(Sequence("tuple", args), dotted, "a tuple")
    named = [("call", editor.value(dotted)), ("args", editor.put(Sequence("tuple", args)))]
    return Made(
        _dict([(editor.value(key), value) for key, value in named]), dotted, "a dict of its arguments"
    )


def _wrapped(editor: Editor, dotted: str, pairs: list[tuple[int, int]]) -> int | None:
    """The node that a wrapper is about: OmegaConf's ``_content`` and ``_val``, pydantic's ``__dict__``."""
    named = {}
    for key, value in pairs:
        text = editor.nodes[key]
        if isinstance(text, Value) and isinstance(text.value, str):
            named[text.value] = value
    if dotted.startswith("omegaconf."):
        return named.get("_content", named.get("_val"))
    inner = named.get("__dict__")
    if inner is not None and isinstance(editor.nodes[inner], Mapping):
        return inner
    return None


# --- what has a meaning of its own -----------------------------------------------------------------------------


def _numbers(editor: Editor, node: Call) -> Made | None:
    """``torch.Size``, as it is."""
    inner = editor.nodes[node.args[0]] if len(node.args) == 1 else None
    if not isinstance(inner, Sequence) or inner.kind not in ("tuple", "list"):
        return None
    values = [editor.nodes[index] for index in inner.items]
    fits = all(
        isinstance(v, Value) and type(v.value) is int and -(1 << 63) <= v.value < 1 << 63 for v in values
    )
    return Made(Call("REDUCE", "torch", "Size", node.args)) if fits else None


def _device(editor: Editor, node: Call) -> Made | None:
    values = [editor.nodes[index] for index in node.args]
    plain = [v.value for v in values if isinstance(v, Value)]
    if not plain or len(plain) != len(values) or len(plain) > 2 or not isinstance(plain[0], str):
        return None
    kind, colon, number = plain[0].partition(":")
    counted = not colon or (number.isascii() and number.isdecimal() and int(number[:4]) < 128)
    indexed = len(plain) == 1 or (type(plain[1]) is int and 0 <= plain[1] < 128 and not colon)
    return (
        Made(Call("REDUCE", "torch", "device", node.args))
        if kind in _DEVICES and counted and indexed
        else None
    )


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
    found = _dict([(editor.value(key), value) for key, value in pairs])
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
    return Made(_dict(pairs), node.dotted, "a dict") if pairs else None


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


Reader = Callable[[Editor, Call], "Made | None"]

_KINDS = "BFloat16 Bool Byte Char Double Float Half Int Long Short".split()

_SPECIAL: dict[tuple[str, str], Reader] = {
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
