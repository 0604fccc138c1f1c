"""Completing what is partly or wholly lost: with zeros, with NaN, or from another checkpoint of the same run."""

from __future__ import annotations

from collections.abc import Iterable

from ckpttool.draft import Content, Copied
from ckpttool.dtypes import DType
from ckpttool.model import Checkpoint, Span, Storage, Tensor, repeated
from ckpttool.repairing.case import Filling, Proof

_ONE_NAN = {
    "float8_e4m3fn": 0x7F, "float8_e4m3fnuz": 0x80, "float8_e5m2": 0x7E, "float8_e5m2fnuz": 0x80,
    "float8_e8m0fnu": 0xFF,
}  # fmt: skip
"""NaN of types that are no IEEE 754 formats, or nearly so."""


def filled(storage: Storage, proof: Proof, how: Filling, dtype: DType | None) -> tuple[Content, str]:
    """A storage's content with the missing part made up, and in words with what. Streamed when it is written.

    ``dtype`` is that of the tensors in it, None where they differ. Only floating types have NaN; others get zeros.
    """
    kept = proof.kept if proof.state == "partial" else 0
    pattern = _nan(dtype) if how == "nan" and dtype is not None else b""
    if pattern and storage.nbytes % len(pattern) == 0:
        return _made(storage, kept, pattern[::-1] if storage.swapped else pattern), "NaN"
    width = 1 if dtype is None else max(1, dtype.itemsize)
    return _made(storage, kept, bytes(width)), "zeros"


def _nan(dtype: DType) -> bytes:
    """The quiet NaN of a type, little-endian; empty where it has none."""
    if dtype.kind != "float" or dtype.bits % 8:
        return b""
    if dtype.name in _ONE_NAN:
        return bytes([_ONE_NAN[dtype.name]])
    bits = ((1 << dtype.exponent) - 1) << dtype.mantissa | 1 << (dtype.mantissa - 1)
    return bits.to_bytes(dtype.itemsize, "little")


def _made(storage: Storage, kept: int, pattern: bytes) -> Copied:
    """What is there, up to its last whole element, and the pattern for the rest."""
    whole = kept // len(pattern) * len(pattern)
    rest = repeated(pattern, whole, storage.nbytes)
    if not whole or storage.span is None:
        return Copied((rest,))
    return Copied((Span(storage.span.source, storage.span.start, storage.span.start + whole), rest))


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
