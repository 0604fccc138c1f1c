"""Names of tensors taken apart: wrappers' segments, templates, words that mean the same, how alike two names are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = "NDArray[np.float64]"

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_module"}
)
"""Segments that DDP, ``torch.compile``, FSDP, activation checkpointing, Lightning and Opacus put into keys."""

CLASH = 0.4
"""What is left of the likeness of two names of which one says ``norm`` or ``query`` and the other does not."""

INDEX = "#"
"""What stands for a whole number in a template."""

# Abbreviations that model code uses for one thing, the first being the word that stands for all of them.
_SAME = """
attention attn att sa self_attention selfattention multihead mha
norm ln layernorm layer_norm rmsnorm bn batchnorm groupnorm gn
layer layers block blocks h resblocks
query q wq
key k wk
value v wv
mlp ffn feed_forward feedforward ff
embedding embeddings embed embeddings_table emb tok wte
position positional pos wpe
projection proj dense out output o wo
gamma scale
convolution conv
decoder dec
encoder enc
classifier head
downsample down
upsample up
weight w
bias b
"""
# What implementations of transformers call the norm before attention and the one before the MLP.
_NORMS = {
    "first": "norm1 ln_1 ln1 layernorm_before input_layernorm attention_norm attn_norm layer_norm1",
    "second": "norm2 ln_2 ln2 layernorm_after post_attention_layernorm ffn_norm mlp_norm layer_norm2",
}
_PHRASES = {word: ("norm", which) for which, words in _NORMS.items() for word in words.split()}
_MEANS = {word: line.split()[0] for line in _SAME.strip().splitlines() for word in line.split()}

_TELLING = ("query", "key", "value", "norm", "convolution", "embedding", "first", "second", "attention")
"""Words of which either both names have the same or they hardly mean the same tensor."""

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|#|[^A-Za-z0-9_#\-]+")


def template(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Segments with ``#`` for those that are whole numbers, and the numbers."""
    numbers = tuple([int(w) for w in words if is_index(w)])
    return tuple([INDEX if is_index(w) else w for w in words]) if numbers else words, numbers


def is_index(word: str) -> bool:
    """Whether a segment is a whole number, and short enough to count something."""
    return word.isascii() and word.isdecimal() and len(word) < 10


def natural(words: tuple[str, ...]) -> tuple[tuple[int, int, str], ...]:
    """A key to sort names by that puts layer 2 before layer 10."""
    return tuple([(0, int(w), w) if is_index(w) else (1, 0, w) for w in words])


@lru_cache(maxsize=1 << 14)
def pieces(word: str) -> tuple[str, ...]:
    """The words inside one segment, abbreviations written out: ``c_attn`` is ``c``, ``attention``."""
    if word in _PHRASES:
        return _PHRASES[word]
    whole = _MEANS.get(word.lower())
    return (whole,) if whole else tuple([_MEANS.get(p.lower(), p.lower()) for p in _PIECE.findall(word)])


def tokens(words: Sequence[str]) -> tuple[str, ...]:
    """All words of a name in order, a word said twice in a row once."""
    found: list[str] = []
    for word in words:
        found.extend(p for p in pieces(word) if not found or found[-1] != p)
    return tuple(found)


def likeness(left: Sequence[tuple[str, ...]], right: Sequence[tuple[str, ...]]) -> Matrix:
    """How alike names are, 0 to 1, rows for ``left``: half by common words in order, half by common letters.

    Symmetric. Costs one pass of rapidfuzz over the product of both lists.
    """
    import numpy as np
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    a, b = [tokens(words) for words in left], [tokens(words) for words in right]
    known = {word: chr(0x10000 + i) for i, word in enumerate(sorted({w for ws in [*a, *b] for w in ws}))}
    score = Indel.normalized_similarity

    def compared(x: list[str], y: list[str]) -> Matrix:
        return np.asarray(cdist(x, y, scorer=score, dtype=np.float64), dtype=np.float64)

    words_alike = compared(["".join(known[w] for w in t) for t in a], ["".join(known[w] for w in t) for t in b])
    letters_alike = compared([".".join(t) for t in a], [".".join(t) for t in b])
    told = [np.array([[word in t for word in _TELLING] for t in ts]) for ts in (a, b)]
    clashes = (told[0][:, None, :] != told[1][None, :, :]).any(axis=2)
    return (words_alike + letters_alike) / 2 * np.where(clashes, CLASH, 1.0)
