"""Two weights that the configuration calls tied are stored apart and differ.

What: The configuration in the checkpoint says `tie_word_embeddings`, and the embedding and the output
layer are two
tensors of one shape in two storages.

Why: Whoever loads the file ties the two again, so one of them silently wins. If they differ, the model
that is loaded
is not the model that was saved.

Cause: A conversion that copied both, training after the tie was lost, or one of the two changed by a
migration.

Remedy: Find out which one the loader keeps (nearly always the embedding), and drop the other one or
tie them again.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import bare, sections, tensors_in
from ckpttool.layout import Section
from ckpttool.model import Damage, Tensor
from ckpttool.rules import Context
from ckpttool.tree import fields, plain

PAIRS = (
    ("lm_head.weight", ("wte.weight", "embed_tokens.weight", "word_embeddings.weight", "embed_in.weight")),
    ("shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")),
)
"""Output layers and shared tables with the embeddings that they are tied to."""


@judges(__doc__, "CK511", "untied-pair", "warning")
def untied_pair(context: Context) -> Iterator[Damage]:
    """Pairs that are known to be tied here and are stored as two tensors."""
    if not _says_tied(context):
        return
    for section in sections(context, "weights"):
        yield from _pairs(context, section)


def _says_tied(context: Context) -> bool:
    # Only the file's own word counts: many models keep the two apart on purpose.
    checkpoint = context.checkpoint
    configs = [fields(checkpoint, s.index) for s in sections(context, "config")]
    return any(plain(checkpoint, known.get("tie_word_embeddings")) is True for known in configs)


def _pairs(context: Context, section: Section) -> Iterator[Damage]:
    tensors = {bare(key): tensor for key, tensor in tensors_in(context, section).items()}
    for head, tables in PAIRS:
        heads = [k for k in tensors if k == head or k.endswith(f".{head}")]
        others = [k for k in tensors if any(k == t or k.endswith(f".{t}") for t in tables)]
        if len(heads) != 1:
            continue
        for other in others:
            if _apart(tensors[heads[0]], tensors[other]):
                message = f"'{heads[0]}' and '{other}' should be tied and lie in two storages"
                yield Damage("untied-pair", section.key, message, {"pair": [heads[0], other]})


def _apart(left: Tensor, right: Tensor) -> bool:
    both = left.storage is not None and right.storage is not None
    return both and left.shape == right.shape and left.storage != right.storage
