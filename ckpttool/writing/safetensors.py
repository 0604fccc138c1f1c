"""safetensors, byte for byte as its library writes it: widest types first, then by name, no gaps.

Source: ``prepare`` in ``safetensors/src/tensor.rs`` of safetensors 0.8; shared tensors as in ``save_model`` of
``safetensors/torch.py``. Where the library writes ``__metadata__`` in an order that changes from run to run,
names are sorted here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ckpttool.draft import Draft
from ckpttool.dtypes import SAFETENSORS
from ckpttool.errors import WriteFailed
from ckpttool.formats.safetensors import HEADER_BYTES
from ckpttool.frozen import dataclass
from ckpttool.model import Json, Span
from ckpttool.stamps import note_of
from ckpttool.writing.dense import pieces
from ckpttool.writing.flat import CODES, Flat, Named, dtype_in_file, flatten, shape_of, ties
from ckpttool.writing.losses import Loss

if TYPE_CHECKING:
    from ckpttool.writing.streams import Sink

NAME = "safetensors"
SUFFIXES = (".safetensors",)

_RANK = {dtype.name: rank for rank, dtype in enumerate(SAFETENSORS.values())}

MIGRATIONS = "ckpttool.migrations"
"""The entry that says which migrations a checkpoint went through."""

REORDERED = Loss("", "order of keys", "the format orders by type and name, shards as they fill", "form")
FRESH = {"format": "pt"}
"""What a file that was none before says of itself: transformers asks for it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What one file will hold: its tensors in their order there, and its metadata."""

    items: tuple[Named, ...]
    metadata: dict[str, str]
    losses: tuple[Loss, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(item.tensor.nbytes for item in self.items)


def lay_out(draft: Draft, flat: Flat | None = None) -> Layout:
    """What the file will hold: one name for each group that shares all of its bytes, the others in the metadata."""
    found = flatten(draft) if flat is None else flat
    repeated = ties(found.items, draft.checkpoint.storages)
    kept = [item for item in found.items if item.name not in repeated]
    metadata = {**repeated, **metadata_of(draft)}
    ordered = in_order(kept)
    losses = [*found.losses, *_tie_losses(repeated), *_view_losses(draft, kept)]
    if [item.name for item in kept] != [item.name for item in ordered]:
        losses.append(REORDERED)
    return Layout(ordered, metadata, tuple(losses))


def in_order(items: Iterable[Named]) -> tuple[Named, ...]:
    """Tensors as the library orders them."""
    return tuple(sorted(items, key=lambda item: (-_RANK[dtype_in_file(item.tensor).name], item.name)))


def losses(draft: Draft) -> tuple[Loss, ...]:
    """Exactly what a safetensors file does not carry. Raises ``UsageError`` for names that meet."""
    return lay_out(draft).losses


def metadata_of(draft: Draft) -> dict[str, str]:
    """The ``__metadata__`` that the draft's source had, else ``FRESH``; and the note of its migrations."""
    found, noted = draft.checkpoint.metadata.get("metadata"), note_of(draft.checkpoint.metadata)
    own = draft.checkpoint.format == NAME and isinstance(found, dict)
    kept = {k: v for k, v in found.items() if isinstance(v, str)} if own and isinstance(found, dict) else dict(FRESH)
    kept.pop(MIGRATIONS, None)
    return {**kept, MIGRATIONS: noted} if noted else kept


def write(
    draft: Draft, sink: Sink, *, layout: Layout | None = None, progress: Callable[[int], None] | None = None
) -> None:
    """Write the draft's tensors. Costs a copy of the bytes, and the memory of the largest view or computation.

    ``layout`` is that of ``lay_out``, for callers who know it. ``progress`` is called with bytes written.
    Raises ``WriteFailed`` where the header would be longer than readers take.
    """
    made = lay_out(draft) if layout is None else layout
    sink.write(header(made.items, made.metadata))
    for item in made.items:
        for piece in pieces(draft, item.tensor):
            if isinstance(piece, Span):
                sink.copy(piece)
            else:
                sink.write(piece)
        if progress is not None:
            progress(item.tensor.nbytes)


def header(items: Iterable[Named], metadata: dict[str, str]) -> bytes:
    """The length, the JSON and its padding; tensors are laid end to end in the order given."""
    table: dict[str, Json] = {}
    if metadata:
        table["__metadata__"] = {key: metadata[key] for key in sorted(metadata)}
    start = 0
    for item in items:
        stop = start + item.tensor.nbytes
        code, shape = CODES[item.tensor.dtype.name], shape_of(item.tensor)
        table[item.name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_BYTES:
        raise WriteFailed("header", f"takes {len(text)} bytes, and readers of safetensors take {HEADER_BYTES}")
    return struct.pack("<Q", len(text)) + text


def _tie_losses(repeated: dict[str, str]) -> Iterable[Loss]:
    for name, kept in repeated.items():
        yield Loss(name, "second name of a tensor", f"stands as '{kept}'; the metadata says so")


def _view_losses(draft: Draft, kept: list[Named]) -> Iterable[Loss]:
    """Tensors that looked into one storage are written apart, and bytes that none looked at are left out."""
    groups: dict[int, list[Named]] = {}
    for item in kept:
        if item.tensor.storage is not None and item.tensor.numel:
            groups.setdefault(item.tensor.storage, []).append(item)
    for index, group in groups.items():
        total = sum(item.tensor.nbytes for item in group)
        have = draft.contents[index].nbytes
        if len(group) > 1:
            for item in group:
                yield Loss(item.name, "shared storage", "written on its own", "form")
        elif total < have:
            why = f"the tensor looks at {total} bytes of {have}"
            yield Loss(group[0].name, "rest of its storage", why, "form")
