"""Where a tensor sits in a network, told by its key: the layer, and the kind of tensor in it. Pure."""

from __future__ import annotations

import re

from ckpttool.folding import fold

_KINDS: tuple[tuple[str, str], ...] = (
    ("qkv", r"qkv|wqkv|c_attn|query_key_value|in_proj|in_proj_weight|in_proj_bias"),
    ("q", r"q|wq|q_proj|query|to_q|q_lin|q_proj_weight"),
    ("k", r"k|wk|k_proj|key|to_k|k_lin|k_proj_weight"),
    ("v", r"v|wv|v_proj|value|to_v|v_lin|v_proj_weight"),
    ("o", r"o|wo|o_proj|out_proj|to_out|out_lin"),
    ("norm", r"(.*_)?(ln|norm|bn|layer_?norm|rms_?norm|group_?norm|batch_?norm)(_?\w{1,3})?|.+norm"),
    ("mlp", r"mlp|ffn?|feed_forward|intermediate|fc\d+|c_fc|(up|gate|down|gate_up)_proj|w[123]|linear\d+"),
    ("mlp", r"dense_h_to_4h|dense_4h_to_h|experts|moe|lin\d"),
    ("embed", r"wte|wpe|.*embed(ding|dings|_tokens)?s?|embed_.*"),
    ("head", r".*head|classifier"),
    ("conv", r"conv\w{0,3}|downsample"),
)
"""What the tensors of widespread architectures are called, the most telling first."""

_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _KINDS)
_ATTENTION = re.compile(r".*att(n|ention)?\d*")
_OUTPUT = re.compile(r"output|dense|c_proj|proj")


def layer_of(key: str) -> str:
    """The key up to its first number, ``model.layers.8``; without one, the module that holds the tensor."""
    words = key.split(".")
    place = next((i for i, word in enumerate(words) if word.isdecimal()), None)
    if place is not None and place + 1 < len(words):
        return ".".join(words[: place + 1])
    return ".".join(words[:-1]) or key


def kind_of(key: str) -> str:
    """What the tensor does in its layer: ``q``, ``k``, ``v``, ``o``, ``mlp``, ``norm``, …

    A name that says none of these is the kind itself: the last module below the layer, else the tensor's own.
    """
    layer = layer_of(key)
    inside = any(word.isdecimal() for word in layer.split("."))
    rest = key[len(layer) + 1 :].split(".") if inside else key.split(".")
    words = [word.lower() for word in rest if word and not word.isdecimal()] or [key]
    attention = any(_ATTENTION.fullmatch(word) for word in words)
    # The innermost name tells most: `mlp.norm.weight` is a norm, `attention.output.dense` is an output.
    for word in reversed(words):
        if attention and _OUTPUT.fullmatch(word):
            return "o"
        for kind, pattern in _PATTERNS:
            if pattern.fullmatch(word):
                return kind
    return words[-2] if len(words) > 1 else words[-1]


def folded(layers: list[str]) -> str:
    """Layers that follow each other as one name: ``layers.{0..7}``."""
    return ", ".join(one.text for one in fold((layer, None) for layer in layers))


__all__ = ["folded", "kind_of", "layer_of"]
