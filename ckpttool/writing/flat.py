"""A tree as one flat list of named tensors, for formats that hold nothing else; and what that leaves out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpttool.draft import Draft
from ckpttool.dtypes import DTYPES, SAFETENSORS, DType
from ckpttool.errors import UsageError, printable
from ckpttool.formats.numpy_arrays import FORM as NUMPY
from ckpttool.frozen import dataclass
from ckpttool.model import (
    MAX_DEPTH,
    Blob,
    Call,
    Checkpoint,
    Entry,
    Global,
    Mapping,
    Node,
    Sequence,
    Storage,
    Tensor,
    Value,
)
from ckpttool.tree import children, fields, key_text
from ckpttool.units import plural
from ckpttool.writing.losses import Loss

CODES = {dtype.name: code for code, dtype in SAFETENSORS.items()} | {"float4_e2m1fn_x2": "F4"}
"""safetensors' code by the name of an element type; torch's packed pairs of 4-bit floats count twice there."""

ONLY_TENSORS = "the format holds tensors only"
BARE = "tensor"
"""The name of a tensor that is the whole checkpoint."""

SPELLED_OUT = 1 << 30
"""Bytes that a view may take when it repeats its elements more than ``MOST_REPEATS`` times."""

MOST_REPEATS = 4096

_SUBCLASS = "torch._tensor._rebuild_from_type_v2"


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor under the name that it gets; ``index`` is its node."""

    name: str
    tensor: Tensor
    index: int


@dataclass(frozen=True, slots=True)
class Flat:
    """The tensors in the tree's order. ``losses`` is everything else."""

    items: tuple[Named, ...]
    losses: tuple[Loss, ...]


def flatten(draft: Draft, *, pickled: bool = False) -> Flat:
    """Every tensor that the format takes under its dotted key, and what stays behind; linear in the tree.

    The format takes dense tensors of its own types; with ``pickled`` any tensor, kept as it is.
    Raises ``UsageError`` where two different tensors would get one name.
    """
    checkpoint = draft.checkpoint
    losses = list(_container_losses(checkpoint))
    found: dict[str, Entry] = {}
    for entry in checkpoint.entries():
        loss = _not_carried(checkpoint, entry, pickled=pickled)
        if loss is not None:
            losses.append(loss)
        if not isinstance(entry.node, Tensor) or loss is not None:
            continue
        name = entry.key if entry.path else BARE
        if name in found and found[name].path != entry.path:
            raise _clash(name)
        found[name] = entry  # a key that is set twice has its last value, as when it is loaded
        losses += () if pickled else _form_losses(checkpoint, name, entry.node)
    items = tuple(Named(n, e.node, e.index) for n, e in found.items() if isinstance(e.node, Tensor))
    return Flat(items, tuple(losses))


def _clash(name: str) -> UsageError:
    return UsageError(
        f"two tensors of the tree would both be named '{printable(name)}'; choose a part with --section, "
        "or a format that keeps the tree"
    )


# --- what is no dense tensor -----------------------------------------------------------------------------


def _not_carried(checkpoint: Checkpoint, entry: Entry, *, pickled: bool) -> Loss | None:
    """Why a leaf cannot be carried at all; None where it can."""
    node = entry.node
    if not isinstance(node, Tensor):
        return Loss(entry.key, kind_of(node), ONLY_TENSORS)
    if pickled:
        return None
    why = _unfit(checkpoint, node) or _unspeakable(entry.key)
    return (
        Loss(entry.key, f"{node.layout if node.layout != 'strided' else node.dtype.name} tensor", why) if why else None
    )


def _unfit(checkpoint: Checkpoint, tensor: Tensor) -> str:
    if tensor.layout != "strided" or tensor.storage is None:
        return f"the format holds dense tensors only, not {tensor.layout} ones"
    if tensor.dtype.name not in CODES:
        return f"the format has no element type {tensor.dtype.name}"
    if tensor.dtype.bits % 8 and (not tensor.contiguous or tensor.offset * tensor.dtype.bits % 8):
        return f"a strided view of elements of {tensor.dtype.bits} bits"
    if tensor.dtype.name == "float4_e2m1fn_x2" and not tensor.shape:
        return "a packed pair without a dimension"
    if tensor.nbytes > SPELLED_OUT and tensor.numel > MOST_REPEATS * max(tensor.extent, 1):
        return f"a view that repeats {tensor.extent} elements as {tensor.numel}"
    if is_lazy(checkpoint, tensor):
        return "a view that torch conjugates or negates when it is read"
    return ""


def _unspeakable(key: str) -> str:
    if key == "__metadata__":
        return "the format keeps this name for itself"
    try:
        key.encode()
    except UnicodeEncodeError:
        return "the name is not valid Unicode"
    return ""


def is_lazy(checkpoint: Checkpoint, tensor: Tensor) -> bool:
    """Whether the bytes stand for other values: torch's conjugate and negative bits."""
    for index in (tensor.call, *(part for name, part in tensor.parts if name == "data")):
        node = None if index is None else checkpoint.nodes[index]
        if isinstance(node, Tensor) and node is not tensor and is_lazy(checkpoint, node):
            return True
        if isinstance(node, Call) and node.name.startswith("_rebuild_tensor_v") and len(node.args) > 6:
            bits = checkpoint.nodes[node.args[-1]]
            if isinstance(bits, Mapping) and bits.keys:
                return True
    return False


def kind_of(node: Node) -> str:
    """What a node is, in a word or two."""
    if isinstance(node, Value):
        return "None" if node.value is None else type(node.value).__name__
    if isinstance(node, Blob):
        return "bytes"
    if isinstance(node, Global):
        return f"name {printable(node.dotted)}"
    if isinstance(node, (Mapping, Sequence)):
        return f"empty {node.kind}" if not below(node) else node.kind
    if isinstance(node, Call):
        return f"object of {printable(node.dotted)}"
    return "tensor"


def below(node: Mapping | Sequence) -> tuple[int, ...]:
    """The values of a container."""
    return node.values if isinstance(node, Mapping) else node.items


# --- how a tensor was kept ---------------------------------------------------------------------------------


def _form_losses(checkpoint: Checkpoint, key: str, tensor: Tensor) -> Iterator[Loss]:
    assert tensor.storage is not None
    storage = checkpoint.storages[tensor.storage]
    if tensor.requires_grad:
        yield Loss(key, "requires_grad", "the format does not record it", "form")
    if storage.device != "cpu":
        yield Loss(key, f"device {printable(storage.device)}", "the format does not record it", "form")
    if not tensor.contiguous:
        yield Loss(key, "strides", "written row-major", "form")
    if tensor.form == NUMPY:
        yield Loss(key, "numpy array", "written as a tensor", "form")
    if tensor.form == _SUBCLASS:
        yield Loss(key, "class and attributes of a tensor", ONLY_TENSORS)


# --- containers --------------------------------------------------------------------------------------------


def _container_losses(checkpoint: Checkpoint) -> Iterator[Loss]:
    nested = 0
    for path, node in _containers(checkpoint):
        key = ".".join(path)
        nested += bool(path)
        if isinstance(node, Call):
            yield Loss(key, kind_of(node), "its attributes are written, its class is not")
        elif node.kind != "dict":
            yield Loss(key, node.kind, "the format knows one flat table of names", "form")
        if isinstance(node, (Mapping, Sequence)) and node.state is not None:
            names = list(fields(checkpoint, node.state))
            known = names == ["_metadata"]  # versions of modules, which safetensors files never have
            what = ", ".join(map(printable, names)) or "attributes"
            yield Loss(key, what, ONLY_TENSORS, "form" if known else "content")
        if isinstance(node, Mapping):
            yield from _key_losses(checkpoint.nodes, key, node)
    if nested:
        yield Loss("", f"nesting of {plural(nested, 'container')}", "names are joined by dots", "form")


def _key_losses(nodes: tuple[Node, ...], key: str, node: Mapping) -> Iterator[Loss]:
    """Keys that are no text become text; two of them that read alike are an error."""
    seen: dict[str, Node] = {}
    for index in node.keys:
        text, found = key_text(nodes[index]), nodes[index]
        if seen.setdefault(text, found) != found:
            raise _clash(f"{key}.{text}" if key else text)
    odd = sum(not (isinstance(found, Value) and isinstance(found.value, str)) for found in seen.values())
    if odd:
        yield Loss(key, f"types of {plural(odd, 'key')}", "names are text", "form")


def _containers(checkpoint: Checkpoint) -> Iterator[tuple[tuple[str, ...], Mapping | Sequence | Call]]:
    """Each container with children once, under its first path."""
    if checkpoint.root is None:
        return
    seen = {checkpoint.root}
    stack: list[tuple[tuple[str, ...], int]] = [((), checkpoint.root)]
    while stack:
        path, index = stack.pop()
        node = checkpoint.nodes[index]
        if not isinstance(node, (Mapping, Sequence, Call)):
            continue
        found = children(checkpoint.nodes, node)
        if found or not path:
            yield path, node
        if len(path) < MAX_DEPTH:
            fresh = [(path + step, child) for step, child in found if child not in seen]
            seen.update(child for _, child in fresh)
            stack.extend(reversed(fresh))


# --- names for the same bytes ------------------------------------------------------------------------------


def ties(items: Iterable[Named], storages: tuple[Storage, ...]) -> dict[str, str]:
    """Names that repeat another tensor wholly, and the name that stands for both: the first by its letters.

    That is the one which ``save_model`` of safetensors keeps.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    for item in items:
        one = item.tensor
        if one.storage is not None and one.numel and storages[one.storage].nbytes:
            place = (one.storage, one.offset, one.dtype, one.shape, one.stride)
            groups.setdefault(place, []).append(item.name)
    return {name: min(names) for names in groups.values() for name in sorted(names) if name != min(names)}


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape as safetensors counts it: torch's packed pairs are two elements."""
    if tensor.dtype.name == "float4_e2m1fn_x2":
        return (*tensor.shape[:-1], 2 * tensor.shape[-1])
    return tensor.shape


def dtype_in_file(tensor: Tensor) -> DType:
    """The element type as safetensors has it."""
    return DTYPES["float4_e2m1fn"] if tensor.dtype.name == "float4_e2m1fn_x2" else tensor.dtype
