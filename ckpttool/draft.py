"""A checkpoint that is yet to be written: its tree, and where the bytes of each storage come from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from ckpttool.expressions import Expression, Form
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Checksum, Span, Storage, Tensor


@dataclass(frozen=True, slots=True)
class Copied:
    """Bytes that lie in files already: ranges, one after the other. ``checksum`` is the recorded one of them all.

    Where they lie deflated, ``inflates_to`` is how many bytes they stand for, and the checksum is of those.
    """

    spans: tuple[Span, ...]
    checksum: Checksum | None = None
    inflates_to: int | None = None

    @property
    def nbytes(self) -> int:
        return sum(span.nbytes for span in self.spans) if self.inflates_to is None else self.inflates_to


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that an expression's leaf stands for, with the storage that it looks into.

    ``inflates_to`` is how many bytes the storage's span stands for where they lie deflated.
    """

    name: str
    tensor: Tensor
    storage: Storage
    inflates_to: int | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """The row-major bytes, in the draft's byte order, of a tensor that is computed when it is written."""

    expression: Expression
    inputs: tuple[Input, ...]
    form: Form

    @property
    def nbytes(self) -> int:
        elements = 1
        for size in self.form.shape:
            elements *= size
        return self.form.dtype.nbytes(elements)


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that are at hand."""

    data: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data)


Content: TypeAlias = "Copied | Made | Held"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a writer takes: ``contents`` has one item for each of ``checkpoint.storages``, in their order.

    The checkpoint's ``source`` names where the tree came from; its extents and spans are not looked at.
    ``metadata`` of the checkpoint is carried where the output's format has room (``__metadata__`` of safetensors,
    the byte order of an archive).
    """

    checkpoint: Checkpoint
    contents: tuple[Content, ...]


def draft_of(checkpoint: Checkpoint) -> Draft:
    """The draft that writes a checkpoint as it is: every storage copied, with its recorded checksum.

    A storage without bytes in the file is written empty: who must not lose it asks for damage first.
    """
    return Draft(checkpoint, contents_of(checkpoint))


def contents_of(checkpoint: Checkpoint) -> tuple[Content, ...]:
    """Where the bytes of each storage lie."""
    deflated = {e.span: e.size or 0 for e in checkpoint.extents if e.method != "stored"}
    return tuple([content_of(storage, deflated) for storage in checkpoint.storages])


def content_of(storage: Storage, deflated: Mapping[Span, int] = MappingProxyType({})) -> Content:
    """A storage's bytes as they lie: a copy of a span, or what the tree itself spells.

    ``deflated`` are the spans of compressed records, with what they inflate to.
    """
    if storage.inline is not None:
        return Held(storage.inline)
    if storage.span is None:
        return Held(b"")
    return Copied((storage.span,), storage.checksum, deflated.get(storage.span) if deflated else None)
