"""Buffers stand here that newer versions of the model no longer have, or one is missing that they expect.

What: Entries such as `position_ids`, `rotary_emb.inv_freq`, GPT-2's `attn.bias` masks or
`relative_position_index`, which are
computed and not learned; or batch norms with running statistics and no `num_batches_tracked`.

Why: Loading with `strict` fails with `Unexpected key(s) in state_dict` (or `Missing key(s)`), although
nothing
that was learned is affected.

Cause: The library that defines the model made the buffer non-persistent, or the file is older than the
buffer.

Remedy: Load with `strict=False` and check that these are the only keys reported, or drop them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import json_list, listing, sections, tensors_in
from ckpttool.layout import Section
from ckpttool.model import Damage, Mapping, Tensor
from ckpttool.rules import Context
from ckpttool.tree import fields, number

_HARMLESS = re.compile(
    r"(?:^|\.)(?:embeddings\.position_ids|rotary_emb\.inv_freq|attn\.masked_bias|attention\.masked_bias|"
    r"relative_position_index|anchor_generator\.cell_anchors\.\d+)$"
)
_MASK = re.compile(r"(?:^|\.)(?:attn|attention)\.bias$")


@judges(__doc__, "CK512", "stale-buffer", "info")
def stale_buffer(context: Context) -> Iterator[Damage]:
    """One finding for the known buffers of each section of weights, one for its missing counters."""
    for section in sections(context, "weights"):
        tensors = tensors_in(context, section)
        stale = [key for key, tensor in tensors.items() if _is_stale(key, tensor)]
        if stale:
            message = f"{len(stale)} buffers that are computed, not learned: {listing(stale)}"
            yield Damage("stale-buffer", section.key, message, {"keys": json_list(stale)})
        missing = list(_untracked(context, section, tensors))
        if missing:
            message = f"{len(missing)} batch norms lack num_batches_tracked: {listing(missing)}"
            yield Damage("stale-buffer", section.key, message, {"missing": json_list(missing)})


def _is_stale(key: str, tensor: Tensor) -> bool:
    # A mask is square and has two leading ones; a bias under the same name is a vector.
    mask = len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and _MASK.search(key) is not None
    return mask or _HARMLESS.search(key) is not None


def _untracked(context: Context, section: Section, tensors: dict[str, Tensor]) -> Iterator[str]:
    """Batch norms of version 2 and later, by ``_metadata``, that lack the counter."""
    node = context.checkpoint.nodes[section.index]
    state = fields(context.checkpoint, node.state) if isinstance(node, Mapping) else {}
    metadata = fields(context.checkpoint, state.get("_metadata"))
    for key in tensors:
        module, dot, name = key.rpartition(".")
        if name != "running_mean" or f"{module}{dot}num_batches_tracked" in tensors:
            continue
        version = number(context.checkpoint, fields(context.checkpoint, metadata.get(module)).get("version"))
        if version is not None and version >= 2:
            yield module
