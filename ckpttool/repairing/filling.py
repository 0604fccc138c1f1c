"""Completing what is partly or wholly lost: with zeros, with NaN, or from another checkpoint of the same run."""

from __future__ import annotations

from collections.abc import Iterable

from ckpttool.draft import Content, Copied, Input, Made
from ckpttool.dtypes import DTYPES, DType
from ckpttool.expressions import Applied, Expression, Form, Leaf
from ckpttool.model import Checkpoint, Span, Storage, Tensor
from ckpttool.ops import Concat, Fill
from ckpttool.repairing.case import Filling, Proof

BYTE = DTYPES["uint8"]


def filled(storage: Storage, proof: Proof, how: Filling, dtype: DType | None) -> tuple[Content, str]:
    """A storage's content with the missing part made up, and in words with what.

    ``dtype`` is that of the tensors in it, None where they differ. Only floating types have NaN; others get zeros.
    """
    kept = proof.kept if proof.state == "partial" else 0
    floating = dtype is not None and dtype.kind == "float" and dtype.bits % 8 == 0
    if how == "nan" and floating and dtype is not None and storage.nbytes % dtype.itemsize == 0:
        return _made(storage, kept, dtype, float("nan")), "NaN"
    return _made(storage, kept, BYTE, 0), "zeros"


def _made(storage: Storage, kept: int, dtype: DType, value: float) -> Made:
    width = dtype.itemsize
    count, whole = storage.nbytes // width, kept // width
    form = Form(dtype, (count,))
    blank: Expression = Applied(Fill((count - whole,), dtype, value), ())
    if not whole:
        return Made(blank, (), form)
    tensor = Tensor(dtype, (whole,), (1,), 0, 0)
    return Made(Applied(Concat(0), (Leaf("kept"), blank)), (Input("kept", tensor, storage),), form)


def from_donor(
    storage: Storage, proof: Proof, views: Iterable[tuple[str, Tensor]], donor: Checkpoint
) -> Content | None:
    """A storage's content with the missing part taken from another checkpoint; None where that has no such tensor.

    ``views`` are the tensors that look into it. One of the same key, type, shape and strides, whose storage has the
    same size, stands for the whole storage.
    """
    names = {entry.key: tensor for entry, tensor in donor.tensors()}
    for key, tensor in views:
        other = names.get(key)
        if other is None or other.storage is None or _looks(other) != _looks(tensor):
            continue
        given = donor.storages[other.storage]
        if given.span is None or given.span.nbytes != storage.nbytes or given.swapped != storage.swapped:
            continue
        return _joined(storage, proof, given)
    return None


def _looks(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride, tensor.offset


def _joined(storage: Storage, proof: Proof, given: Storage) -> Copied:
    assert given.span is not None
    if proof.state != "partial" or storage.span is None:
        return Copied((given.span,), given.checksum)
    cut = storage.span.start + proof.kept
    own = Span(storage.span.source, storage.span.start, cut)
    return Copied((own, Span(given.span.source, given.span.start + proof.kept, given.span.stop)))
