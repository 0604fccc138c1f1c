"""Which tensors of a state dict are parameters, in the model's order: buffers left out, ties counted once."""

from __future__ import annotations

import re

from ckpttool.model import Mapping, Tensor
from ckpttool.profiles.view import View
from ckpttool.tree import walk

_BUFFERS = frozenset(
    "running_mean running_var num_batches_tracked n_averaged position_ids token_type_ids inv_freq original_inv_freq "
    "masked_bias relative_position_index relative_coords_table attn_mask cos_cached sin_cached _extra_state".split()
)
"""Names that are buffers wherever they occur. Others cannot be told from parameters, and need not be."""

_BUFFER_HOMES = re.compile(r"(?:^|\.)(?:anchor_generator\.|running_avg_)")
_GPT2_MASK = re.compile(r"(?:^|\.)attn\.bias$")


def is_buffer(key: str, tensor: Tensor) -> bool:
    """Whether an entry is surely no parameter: by its name, or as integers have no gradient."""
    if tensor.dtype.kind not in ("float", "complex"):
        return tensor.dtype.kind != "quantized"
    mask = len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and _GPT2_MASK.search(key) is not None
    return mask or key.rpartition(".")[2] in _BUFFERS or _BUFFER_HOMES.search(key) is not None


def tensors_of(view: View, index: int) -> list[tuple[str, int]]:
    """Every tensor below a node as ``(key relative to it, node index)``, in the file's order."""
    node = view.node(index)
    if isinstance(node, Tensor):
        return [("", index)]
    nodes = view.nodes
    if isinstance(node, Mapping) and all(type(nodes[v]) is Tensor for v in node.values):
        return list(view.fields(index).items())
    return [(e.key, e.index) for e in walk(view.checkpoint, index) if isinstance(e.node, Tensor)]


def parameters_of(view: View, index: int) -> tuple[tuple[str, int], ...]:
    """The parameters below a node in its order; of tensors that share all their elements, the first."""
    kept: list[tuple[str, int]] = []
    seen: set[object] = set()
    for key, at in tensors_of(view, index):
        tensor = view.node(at)
        if not isinstance(tensor, Tensor) or is_buffer(key, tensor):
            continue
        place = at if tensor.storage is None else (tensor.storage, tensor.offset, tensor.shape, tensor.stride)
        if place not in seen:
            seen.add(place)
            kept.append((key, at))
    return tuple(kept)
