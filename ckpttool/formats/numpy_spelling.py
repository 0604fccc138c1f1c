"""numpy arrays on their way back into a pickle: as the file spelled them, or anew where they have changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping as MappingABC

from ckpttool.dtypes import DType
from ckpttool.errors import WriteFailed
from ckpttool.formats.numpy_arrays import array_at, code_of, dtype_at
from ckpttool.model import Call, Global, Node, Scalar, Sequence, Span, Storage, Tensor, Value


def respelled(
    nodes: list[Node], tensor: Tensor, storage: Storage, arrays: MappingABC[int, bytes], read: Callable[[Span], bytes]
) -> int:
    """The index of the call that makes the array. Where its own does no longer, a new one is put behind the nodes.

    ``arrays`` are new contents by storage, little-endian and row-major; ``read`` fetches those that are in files.
    """
    assert tensor.storage is not None
    if tensor.call is not None and tensor.storage not in arrays and _still_fits(nodes, tensor, storage):
        return tensor.call
    data = arrays.get(tensor.storage)
    if data is None:
        data = storage.inline if storage.inline is not None else read(storage.span) if storage.span else b""
    if not tensor.contiguous or tensor.offset or tensor.nbytes != len(data):
        why = f"a numpy array of {list(tensor.shape)} is not the {len(data)} bytes that it would be made of"
        raise WriteFailed(storage.record or storage.key, why)
    swapped = storage.swapped and tensor.storage not in arrays
    return _spelled(nodes, tensor, data, swapped)


def _still_fits(nodes: list[Node], tensor: Tensor, storage: Storage) -> bool:
    """Whether the call spells this very array: its type, shape, order and bytes."""
    call = nodes[tensor.call] if tensor.call is not None else None
    array = array_at(nodes, call) if isinstance(call, Call) else None
    if array is None:
        return False
    where = storage.inline if storage.inline is not None else storage.span
    same = (array.dtype, array.shape, array.swapped) == (tensor.dtype, tensor.shape, storage.swapped)
    straight = array.fortran != tensor.contiguous or len(tensor.shape) < 2
    return same and array.data == where and (straight or tensor.numel <= 1)


def _spelled(nodes: list[Node], tensor: Tensor, data: bytes, swapped: bool) -> int:
    """``_reconstruct(ndarray, (0,), b'b')`` and its state, in the module that the array came from."""
    old = nodes[tensor.call] if tensor.call is not None else None
    core = old.module.rpartition(".")[0] if isinstance(old, Call) else "numpy.core"

    def put(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    def value(scalar: Scalar) -> int:
        return put(Value(scalar))

    shape = put(Sequence("tuple", tuple(value(size) for size in tensor.shape)))
    state = (value(1), shape, _dtype(nodes, old, tensor.dtype, swapped), value(False), value(data))
    args = (put(Global("numpy", "ndarray")), put(Sequence("tuple", (value(0),))), value(b"b"))
    return put(Call("REDUCE", f"{core}.multiarray", "_reconstruct", args, put(Sequence("tuple", state))))


def _dtype(nodes: list[Node], old: Node | None, dtype: DType, swapped: bool) -> int:
    """The node of an element type: the one that the old array had where it is the same, so that it stays shared."""
    for index in _below(nodes, old):
        if isinstance(nodes[index], Call) and dtype_at(nodes, index) == (dtype, swapped):
            return index
    code = code_of(dtype)
    if code is None:
        raise WriteFailed("numpy array", f"numpy has no {dtype.name}; cast to a type that it has")
    order = "|" if dtype.bits == 8 else ">" if swapped else "<"
    first = len(nodes)
    nodes += [Value(part) for part in (code, False, True, 3, order, None, -1, 0)]
    text, no, yes, version, mark, none, unset, zero = range(first, first + 8)
    nodes.append(Sequence("tuple", (version, mark, none, none, none, unset, unset, zero)))
    nodes.append(Call("REDUCE", "numpy", "dtype", (text, no, yes), len(nodes) - 1))
    return len(nodes) - 1


def _below(nodes: list[Node], call: Node | None) -> tuple[int, ...]:
    if not isinstance(call, Call):
        return ()
    state = None if call.state is None else nodes[call.state]
    return (*call.args, *(state.items if isinstance(state, Sequence) else ()))
