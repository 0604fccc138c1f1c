"""numpy inside pickles: arrays become tensors, scalars become values, on a finished arena.

Nothing is built: an array is its shape, dtype and where its bytes lie. The call that spells it stays in the
arena, so nothing is lost. Arrays of objects, strings, dates or records stay calls.
Source: numpy 2.4 ``numpy/_core/src/multiarray/methods.c`` (``array_reduce``, ``array_setstate``) and
``descriptor.c`` (``arraydescr_reduce``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence as SequenceABC

from ckpttool.dtypes import DTYPES, DType
from ckpttool.frozen import dataclass
from ckpttool.model import Blob, Call, Damage, Global, Node, Scalar, Sequence, Span, Storage, Tensor, Value

CORE = frozenset({"numpy.core", "numpy._core"})
FORM = "numpy._core.multiarray._reconstruct"
SWAPPED = ">"
_BUILTINS = ("builtins", "__builtin__")

_KINDS = {
    "b1": "bool", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}  # fmt: skip
_CODES = {
    "bool": "?", "float16": "e", "float32": "f", "float64": "d", "complex64": "ff", "complex128": "dd",
    "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lifted:
    """An arena whose arrays are tensors. Indices of the arena that was given still hold."""

    nodes: tuple[Node, ...]
    storages: tuple[Storage, ...]
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """What numpy would build: an element type, its byte order, a shape, and its bytes or where they lie."""

    dtype: DType
    swapped: bool
    shape: tuple[int, ...]
    fortran: bool
    data: Span | bytes

    @property
    def nbytes(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes


def lift(nodes: SequenceABC[Node], storages: SequenceABC[Storage], record: str) -> Lifted:
    """Turn numpy's calls in ``nodes`` into tensors and values; linear, total.

    ``record`` names the extent in which the pickle lies. An array whose bytes do not fit its shape stays a
    call and is reported as ``storage-size``. What has been lifted before is left as it is.
    """
    out, kept, damage = list(nodes), list(storages), list[Damage]()
    done = {n.call for n in nodes if (isinstance(n, Tensor) and n.form == FORM) or isinstance(n, Value)}
    for index, node in enumerate(nodes):
        if not isinstance(node, Call) or not node.module.startswith("numpy.") or index in done:
            continue
        array = array_at(nodes, node)
        if array is not None:
            found = _tensor(array, len(kept), len(out))
            if isinstance(found, Damage):
                damage.append(found)
                continue
            kept.append(_storage(array, index, record))
            out[index] = found
            out.append(node)
            continue
        scalar = _scalar(nodes, node)
        if scalar is not None:
            out[index] = Value(scalar, len(out))
            out.append(node)
    return Lifted(tuple(out), tuple(kept), tuple(damage))


def code_of(dtype: DType) -> str | None:
    """numpy's code of an element type (``f4``); None where it has none."""
    return next((code for code, name in _KINDS.items() if name == dtype.name), None)


def dtype_at(nodes: SequenceABC[Node], index: int) -> tuple[DType, bool] | None:
    """The element type that a ``numpy.dtype(…)`` call stands for, and whether it is big-endian.

    None for anything but plain numbers: structured, string, date and object types, unknown spellings.
    """
    node = nodes[index]
    if not isinstance(node, Call) or node.dotted != "numpy.dtype" or not node.args:
        return None
    code = _plain(nodes, node.args[0])
    dtype = DTYPES.get(_KINDS.get(code, "")) if isinstance(code, str) else None
    state = nodes[node.state] if node.state is not None else None
    if dtype is None:
        return None
    if state is None:
        return dtype, False
    if not isinstance(state, Sequence) or len(state.items) < 5:
        return None
    order = _plain(nodes, state.items[1])
    if order not in ("<", ">", "|", "=") or any(_plain(nodes, i) is not None for i in state.items[2:5]):
        return None
    return dtype, order == SWAPPED and dtype.bits > 8


# --- arrays ----------------------------------------------------------------------------------------------


def array_at(nodes: SequenceABC[Node], node: Call) -> Array | None:
    """The array that a call makes; None for any other call."""
    package, _, module = node.module.rpartition(".")
    if package not in CORE or node.how != "REDUCE":
        return None
    if (module, node.name) == ("multiarray", "_reconstruct"):
        return _reconstructed(nodes, node)
    if (module, node.name) == ("numeric", "_frombuffer"):
        return _from_buffer(nodes, node)
    return None


def _reconstructed(nodes: SequenceABC[Node], node: Call) -> Array | None:
    """``_reconstruct(ndarray, (0,), b'b')`` with the state ``(version, shape, dtype, fortran, bytes)``."""
    state = None if node.state is None else nodes[node.state]
    if len(node.args) != 3 or not _is_ndarray(nodes[node.args[0]]):
        return None
    if not isinstance(state, Sequence) or state.kind != "tuple" or len(state.items) not in (4, 5):
        return None
    shape, dtype, fortran, data = state.items[-4:]
    return _made(nodes, shape, dtype, fortran=_plain(nodes, fortran) in (True, 1), data=data)


def _from_buffer(nodes: SequenceABC[Node], node: Call) -> Array | None:
    """``_frombuffer(bytes, dtype, shape, order)``, protocol 5."""
    if len(node.args) != 4 or node.state is not None:
        return None
    data, dtype, shape, order = node.args
    text = _plain(nodes, order)
    return _made(nodes, shape, dtype, fortran=text == "F", data=data) if text in ("C", "F") else None


def _made(nodes: SequenceABC[Node], shape: int, dtype: int, *, fortran: bool, data: int) -> Array | None:
    kind, sizes, content = dtype_at(nodes, dtype), _shape(nodes, shape), nodes[data]
    where = content.span if isinstance(content, Blob) else _bytes(content)
    if kind is None or sizes is None or where is None:
        return None
    return Array(kind[0], kind[1], sizes, fortran, where)


def _tensor(array: Array, storage: int, call: int) -> Tensor | Damage:
    needs, have = array.dtype.nbytes(math.prod(array.shape)), array.nbytes
    if needs != have:
        message = f"{list(array.shape)[:8]} of {array.dtype.name} take {needs} bytes, and the pickle holds {have}"
        return Damage("storage-size", "numpy array", message, {"needs": needs, "have": have})
    stride = _strides(array.shape[::-1])[::-1] if not array.fortran else _strides(array.shape)
    return Tensor(array.dtype, array.shape, stride, 0, storage, form=FORM, call=call)


def _storage(array: Array, index: int, record: str) -> Storage:
    inline, span = (array.data, None) if isinstance(array.data, bytes) else (None, array.data)
    return Storage(
        f"ndarray {index}", array.dtype, array.nbytes, span,
        record=record, inline=inline, swapped=array.swapped,
    )  # fmt: skip


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one index to the next, where the first dimension runs fastest."""
    step, strides = 1, list[int]()
    for size in shape:
        strides.append(step)
        step *= max(size, 1)
    return tuple(strides)


# --- scalars ---------------------------------------------------------------------------------------------


def _scalar(nodes: SequenceABC[Node], node: Call) -> Scalar:
    """The value of ``scalar(dtype, bytes)``; None where it is not a number that fits."""
    package, _, module = node.module.rpartition(".")
    if package not in CORE or (module, node.name) != ("multiarray", "scalar") or len(node.args) != 2:
        return None
    kind, data = dtype_at(nodes, node.args[0]), _bytes(nodes[node.args[1]])
    if kind is None or data is None or len(data) != kind[0].itemsize:
        return None
    dtype, swapped = kind
    numbers = struct.unpack((">" if swapped else "<") + _CODES[dtype.name], data)
    value: Scalar = complex(*numbers) if dtype.kind == "complex" else numbers[0]
    return value


# --- small readers ---------------------------------------------------------------------------------------


def _plain(nodes: SequenceABC[Node], index: int) -> Scalar:
    node = nodes[index]
    return node.value if isinstance(node, Value) else _NOTHING


_NOTHING = "\0 not a plain value"


def _shape(nodes: SequenceABC[Node], index: int) -> tuple[int, ...] | None:
    node = nodes[index]
    if not isinstance(node, Sequence) or node.kind not in ("tuple", "list"):
        return None
    sizes = [_plain(nodes, i) for i in node.items]
    # numpy allows 64 dimensions.
    if len(sizes) > 64 or any(type(size) is not int or size < 0 for size in sizes):
        return None
    return tuple(size for size in sizes if isinstance(size, int))


def _is_ndarray(node: Node) -> bool:
    return isinstance(node, Global) and node.dotted == "numpy.ndarray"


def _bytes(node: Node) -> bytes | None:
    """Content that the pickle spells out; Python 2 wrote it as text, one character for each byte."""
    if isinstance(node, Call) and node.name == "bytes" and node.module in _BUILTINS and not node.args:
        return b""  # protocols below 3 spell no bytes at all as a call
    content = node.value if isinstance(node, Value) else None
    if isinstance(content, str):
        try:
            return content.encode("latin-1")
        except UnicodeEncodeError:
            return None
    return content if isinstance(content, bytes) else None
