"""Parts of tensors in files, without reading the rest: what only looks elsewhere in a storage is another view of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ckpttool.draft import Input
from ckpttool.expressions import Applied, Expression, Form, Leaf, Op
from ckpttool.model import Tensor
from ckpttool.ops import Permute, Reshape, Slice, Split, Unstack
from ckpttool.ops.base import Shape, axis


def view_of(expression: Expression, inputs: Mapping[str, Input]) -> Input | None:
    """The input that an expression is a strided view of, as a tensor of its own; None where it is none.

    One expert of hundreds that are packed in one tensor is read alone. Expects a simplified expression.
    """
    if isinstance(expression, Leaf):
        given = inputs[expression.name]
        tensor = given.tensor
        sound = tensor.dtype.bits % 8 == 0 and len(tensor.shape) == len(tensor.stride)
        return given if sound else None
    if len(expression.inputs) != 1:
        return None
    inner = view_of(expression.inputs[0], inputs)
    if inner is None:
        return None
    seen = _viewed(expression, inner.tensor)
    return None if seen is None else replace(inner, tensor=seen)


def _viewed(applied: Applied, tensor: Tensor) -> Tensor | None:
    op = applied.op
    if isinstance(op, Permute):
        shape, stride = (tuple(of[i] for i in op.axes) for of in (tensor.shape, tensor.stride))
        return replace(tensor, shape=shape, stride=stride)
    form = Form(tensor.dtype, tensor.shape)
    if isinstance(op, Reshape):
        shape = op.forms((form,))[0].shape
        return replace(tensor, shape=shape, stride=_row_major(shape)) if tensor.contiguous else None
    if isinstance(op, (Slice, Split, Unstack)):
        dim = axis(op.name, op.dim, form)
        return _cut(tensor, dim, _rows(op, applied.part, form, dim), isinstance(op, Unstack))
    return None


def _rows(op: Op, part: int, form: Form, dim: int) -> range:
    if isinstance(op, Slice):
        return op.rows(form.shape[dim])
    if isinstance(op, Split):
        pieces = op.pieces(form)
        return range(sum(pieces[:part]), sum(pieces[: part + 1]))
    return range(part, part + 1)


def _cut(tensor: Tensor, dim: int, rows: range, single: bool) -> Tensor:
    """Some rows of a dimension; a ``single`` one leaves it out."""
    keep = () if single else (len(rows),)
    shape = (*tensor.shape[:dim], *keep, *tensor.shape[dim + 1 :])
    steps = () if single else (tensor.stride[dim] * rows.step,)
    stride = (*tensor.stride[:dim], *steps, *tensor.stride[dim + 1 :])
    # Nothing is read of an empty part, so its offset need not lie anywhere else.
    start = tensor.stride[dim] * rows.start if len(rows) else 0
    return replace(tensor, shape=shape, stride=stride, offset=tensor.offset + start)


def _row_major(shape: Shape) -> Shape:
    found, step = [], 1
    for size in reversed(shape):
        found.append(step)
        step *= size
    return tuple(reversed(found))
