"""Whether a checkpoint that was read back is the one that was meant: node for node, sharing included. Pure."""

from __future__ import annotations

from operator import attrgetter

from ckpttool.editing import below
from ckpttool.errors import printable
from ckpttool.model import Blob, Call, Checkpoint, Global, Mapping, Node, Sequence, Storage, Tensor, Value

_TENSOR = attrgetter("dtype", "shape", "stride", "offset", "requires_grad", "layout", "form", "parts", "call")
"""What a tensor says beside its storage."""


def first_difference(meant: Checkpoint, found: Checkpoint) -> str:
    """Where and how the two trees part first, empty if nowhere. Bytes of tensors are not looked at; linear."""
    if meant.root is None or found.root is None:
        return "" if meant.root is found.root else "there is no tree"
    if _is_same(meant, found):
        return ""
    stack = [(meant.root, found.root)]
    nodes: dict[int, int] = {}
    storages: dict[int, int] = {}
    while stack:
        ours, theirs = stack.pop()
        one, other = meant.nodes[ours], found.nodes[theirs]
        if ours in nodes and not _is_atom(one):
            if nodes[ours] != theirs:
                return f"node {ours} stands in two places, and two nodes were found there"
            continue
        nodes[ours] = theirs
        children, others = below(one), below(other)
        if _face(one) != _face(other) or len(children) != len(others):
            return f"node {ours} is {_said(one)}, and {_said(other)} was found"
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            why = _storage_difference(meant, found, one, other, storages)
            if why:
                return f"node {ours}: {why}"
        stack += zip(children, others, strict=True)
    if len(set(storages.values())) < len(storages):
        return "two storages became one"
    return ""


def _is_same(meant: Checkpoint, found: Checkpoint) -> bool:
    """Whether the nodes are the same one by one, as they are where both trees are numbered as a reader does."""
    if meant.root != found.root or len(meant.nodes) != len(found.nodes):
        return False
    storages: dict[int, int] = {}
    for one, other in zip(meant.nodes, found.nodes, strict=True):
        if type(one) is not type(other):
            return False
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if _TENSOR(one) != _TENSOR(other) or _storage_difference(meant, found, one, other, storages):
                return False
        elif isinstance(one, Value) and isinstance(other, Value):
            # Bits tell 0.0 from -0.0 and True from 1, which are equal.
            if one.call != other.call or type(one.value) is not type(other.value):
                return False
            if one.value != other.value if isinstance(one.value, str) else repr(one.value) != repr(other.value):
                return False
        elif isinstance(one, Blob) or one != other:
            return False
    return len(set(storages.values())) == len(storages)


def _is_atom(node: Node) -> bool:
    """Whether nobody can tell one from two of it."""
    return isinstance(node, Global) or (isinstance(node, Value) and node.call is None)


def _face(node: Node) -> tuple[object, ...]:
    """What a node says, without the places of others."""
    if isinstance(node, Value):
        return ("value", type(node.value), repr(node.value), node.call is None)
    if isinstance(node, Blob):
        return ("bytes", node.span.nbytes)
    if isinstance(node, Global):
        return ("name", node.module, node.name)
    if isinstance(node, Mapping):
        return ("mapping", node.kind, len(node.keys), node.state is None, len(node.extra))
    if isinstance(node, Sequence):
        return ("sequence", node.kind, len(node.items), node.state is None)
    if isinstance(node, Call):
        sizes = len(node.args), len(node.items), len(node.keys), node.state is None
        return ("call", node.how, node.module, node.name, *sizes)
    return (
        "tensor", node.dtype, node.shape, node.stride, node.offset, node.requires_grad, node.layout, node.form,
        tuple(name for name, _ in node.parts), node.call is None,
    )  # fmt: skip


def _said(node: Node) -> str:
    return printable(" ".join(str(part) for part in _face(node)[:4]))[:120]


def _storage_difference(meant: Checkpoint, found: Checkpoint, one: Tensor, other: Tensor, known: dict[int, int]) -> str:
    if one.storage is None or other.storage is None:
        return "" if one.storage is other.storage else "one of the two has no storage"
    if known.setdefault(one.storage, other.storage) != other.storage:
        return "a shared storage came apart"
    ours, theirs = _facts(meant.storages[one.storage]), _facts(found.storages[other.storage])
    return "" if ours == theirs else f"its storage is {ours}, and {theirs} was found"


def _facts(storage: Storage) -> tuple[object, ...]:
    return storage.dtype.name, storage.nbytes, storage.device
