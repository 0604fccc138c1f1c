"""What numpy pickles beside numbers and arrays of numbers: types, text, objects, random state."""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceABC

from ckpttool.editing import Editor
from ckpttool.errors import printable
from ckpttool.model import Blob, Call, Node, Scalar, Sequence, Value
from ckpttool.repairing.plain.made import Made, described

CELLS = 1 << 16
"""Cells of an array of texts that become a list; a larger one is described."""


def of_numpy(editor: Editor, module: str, node: Call) -> Made | None:
    """What a type, a text or an array becomes that is no array of numbers; None for other objects."""
    if (module, node.name) == ("numpy", "dtype") or module == "numpy.dtypes":
        name = _type_name(editor.nodes, node)
        return Made(Value(name), "numpy.dtype", "its name as text")
    if (module, node.name) == ("numpy._core.multiarray", "scalar"):
        return _scalar(editor, node)
    if (module, node.name) == ("numpy._core.multiarray", "_reconstruct"):
        return _array(editor, node)
    return None


def _plain(nodes: SequenceABC[Node], index: int) -> Scalar:
    node = nodes[index]
    return node.value if isinstance(node, Value) else None


def _type_name(nodes: SequenceABC[Node], node: Call) -> str:
    code = _plain(nodes, node.args[0]) if node.args else None
    if isinstance(code, str):
        return f"numpy.dtype('{printable(code)[:40]}')"
    return node.name if node.name != "dtype" else "numpy.dtype"


def _scalar(editor: Editor, node: Call) -> Made:
    """``scalar(dtype, bytes)`` of a type that is no number."""
    if len(node.args) == 2:
        kind, data = editor.nodes[node.args[0]], editor.nodes[node.args[1]]
        texts = _texts(editor.nodes, kind, data, 1)
        if texts:
            return Made(Value(texts[0]), "numpy.str_", "text")
        if isinstance(kind, Call) and _plain(editor.nodes, kind.args[0] if kind.args else 0) == "O8":
            return Made(node.args[1], "a numpy object", "what it holds")
    return described("a numpy scalar")


def _array(editor: Editor, node: Call) -> Made:
    """An array of texts or objects as a list, row-major; others have no plain form."""
    nodes = editor.nodes
    state = None if node.state is None else nodes[node.state]
    if not isinstance(state, Sequence) or len(state.items) not in (4, 5):
        return described("a numpy array")
    shape, kind, _, data = (nodes[index] for index in state.items[-4:])
    sizes = [_plain(nodes, i) for i in shape.items] if isinstance(shape, Sequence) else []
    counts = [size for size in sizes if type(size) is int and size >= 0]
    what = f"a numpy array of {_type_name(nodes, kind) if isinstance(kind, Call) else 'unknown type'}"
    if len(counts) != len(sizes) or not isinstance(kind, Call):
        return described(what)
    if isinstance(data, Sequence) and len(data.items) == math.prod(counts):
        return Made(Sequence("list", data.items), what, "a list of its elements")
    texts = _texts(nodes, kind, data, math.prod(counts))
    if texts is None:
        return described(f"{what}, shape {counts}")
    return Made(Sequence("list", tuple(editor.value(text) for text in texts)), what, "a list of its elements")


def _texts(nodes: SequenceABC[Node], kind: Node, data: Node, count: int) -> list[str] | None:
    """``count`` texts of fixed length, UTF-32, NULs at their ends left out; None for any other type."""
    if not isinstance(kind, Call) or not kind.args or count > CELLS:
        return None
    code, raw = _plain(nodes, kind.args[0]), data.value if isinstance(data, Value) else None
    if isinstance(data, Blob) or not isinstance(code, str) or not code.startswith("U") or not code[1:].isdecimal():
        return None
    if isinstance(raw, str):
        raw = raw.encode("latin-1", "replace")
    width = 4 * int(code[1:9])
    if not isinstance(raw, bytes) or len(raw) != width * count:
        return None
    order = "utf-32-be" if _big(nodes, kind) else "utf-32-le"
    cells = (raw[start : start + width] for start in range(0, len(raw), width)) if width else [b""] * count
    return [cell.decode(order, "replace").rstrip("\0") for cell in cells]


def _big(nodes: SequenceABC[Node], kind: Call) -> bool:
    state = None if kind.state is None else nodes[kind.state]
    return isinstance(state, Sequence) and len(state.items) > 1 and _plain(nodes, state.items[1]) == ">"
