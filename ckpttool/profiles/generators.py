"""Recognising the states of random generators by what they look like, not by what they are called.

Sources: CPython ``random.getstate`` (version 3: 624 words and a position), numpy ``RandomState.get_state``,
torch 2.13 ``CPUGeneratorImpl`` (5056 bytes) and ``CUDAGeneratorImpl`` (16 bytes; 816 before 1.8).
"""

from __future__ import annotations

from ckpttool.model import Call, Mapping, Sequence, Tensor, Value
from ckpttool.profiles.view import View

CPU_BYTES = 5056
CUDA_BYTES = frozenset({16, 816})
_NUMPY = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})
_VISITS = 10_000


def generator_kind(view: View, index: int, name: str = "") -> str | None:
    """``python``, ``numpy``, ``torch`` or ``cuda`` if the node is such a generator's state, else None."""
    node = view.node(index)
    if isinstance(node, Tensor):
        return _tensor_kind(node, name)
    if isinstance(node, Sequence):
        return _sequence_kind(view, node)
    if isinstance(node, Mapping):
        bits = view.fields(index).get("bit_generator") if len(node.keys) < 16 else None
        return "numpy" if bits is not None and _text(view, bits) in _NUMPY else None
    if isinstance(node, Call):
        if node.module.startswith("numpy.random"):
            return "numpy"
        return "python" if node.dotted == "random.Random" else None
    return None


def _tensor_kind(node: Tensor, name: str) -> str | None:
    if node.dtype.name != "uint8" or len(node.shape) != 1:
        return None
    if node.shape[0] == CPU_BYTES:
        return "torch"
    # Sixteen bytes alone say nothing: the name has to speak of a generator too.
    lowered = name.lower()
    return "cuda" if node.shape[0] in CUDA_BYTES and any(w in lowered for w in ("rng", "cuda", "random")) else None


def _sequence_kind(view: View, node: Sequence) -> str | None:
    if len(node.items) < 2:
        return None
    first, second = (view.node(i) for i in node.items[:2])
    if isinstance(first, Value) and first.value in _NUMPY and isinstance(first.value, str):
        return "numpy"
    words = isinstance(second, Sequence) and len(second.items) == 625
    return "python" if words and isinstance(first, Value) and first.value in (2, 3) else None


def _text(view: View, index: int) -> str:
    node = view.node(index)
    return node.value if isinstance(node, Value) and isinstance(node.value, str) else ""


def generators_below(view: View, index: int, name: str = "") -> list[tuple[str, int]]:
    """Every generator state at or below a node, as ``(kind, node index)``. Bounded."""
    found: list[tuple[str, int]] = []
    stack, seen = [(name, index)], set[int]()
    while stack and len(seen) < _VISITS:
        label, at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        kind = generator_kind(view, at, label)
        if kind is not None:
            found.append((kind, at))
            continue
        stack.extend((f"{label}.{key}", child) for key, child in reversed(view.below(at)))
    return found
