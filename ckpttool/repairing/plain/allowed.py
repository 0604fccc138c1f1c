"""The names that ``torch.load(weights_only=True)`` imports, and nothing else.

Source: torch 2.13 ``torch/_weights_only_unpickler.py`` (``_get_allowed_globals``), 144 names. It looks names up as they
are written, so older spellings do not count.
"""

from __future__ import annotations

from ckpttool.safety import REFERENCES, SCHEMES

_REFUSED = frozenset(
    [
        *((module, f"Complex{kind}Tensor") for module in ("torch", "torch.cuda") for kind in ("Double", "Float")),
        *(("builtins", name) for name in "NoneType bool bytes dict float frozenset int list object".split()),
        *(("builtins", name) for name in "range slice str tuple type".split()),
        *(("torch", name) for name in "double dtype float half layout memory_format strided".split()),
        *(("torch", name) for name in "sparse_bsc sparse_bsr sparse_coo sparse_csc sparse_csr".split()),
        *(("torch", f"{name}_format") for name in ("contiguous", "preserve")),
        *(("torch.nn.parameter", name) for name in "Buffer UninitializedBuffer UninitializedParameter".split()),
        *(("torch.storage", name) for name in ("_TypedStorage", "_UntypedStorage")),
        *(("torch._utils", name) for name in ("_rebuild_sparse_csr_tensor", "_rebuild_xla_tensor")),
        *((module, "DTensor") for module, name in REFERENCES if name == "DTensor"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("numpy", "ndarray"),
        ("torch", "channels_last"),
        ("torch", "channels_last_3d"),
        ("torch._tensor", "_rebuild_from_type"),
        ("torch.nested._internal.nested_tensor", "NestedTensor"),
        ("torch.nested._internal.nested_tensor", "_rebuild_njt"),
    ]
)
"""Plain data by ``safety``'s lists, and not by torch's."""

ALLOWED: frozenset[tuple[str, str]] = (REFERENCES | SCHEMES) - _REFUSED


def is_allowed(module: str, name: str) -> bool:
    """Whether torch imports this name; the Python 2 name of ``builtins`` is read as that module."""
    return ("builtins" if module == "__builtin__" else module, name) in ALLOWED
