"""Tensors that ``add`` makes: like others, of one value, of numbers that count, or cut out of others."""

from __future__ import annotations

from ckpttool import ops
from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Applied, Expression, Form, Op, OpError
from ckpttool.migration.compiled import Compiled
from ckpttool.migration.operations import Asked, dtype_from


def index_ops(text: str, form: Form) -> tuple[Op, ...]:
    """``:, 0, 2:5`` as operations: slices, then a reshape that leaves out indexed dimensions. Raises ``OpError``."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > len(form.shape):
        raise OpError(f"the index [{text}] has {len(parts)} places; the tensor has {len(form.shape)} dimensions")
    found: list[Op] = []
    kept: list[int] = []
    for dim, size in enumerate(form.shape):
        part = parts[dim] if dim < len(parts) else ":"
        start, stop = _range(part, size, text)
        if (start, stop) != (0, size):
            found.append(ops.Slice(dim, start, stop))
        if ":" in part:
            kept.append(stop - start)
    return (*found, ops.Reshape(tuple(kept))) if len(kept) != len(form.shape) else tuple(found)


def _range(part: str, size: int, text: str) -> tuple[int, int]:
    first, colon, last = part.partition(":")
    try:
        if not colon:
            at = int(first)
            if not -size <= at < size:
                raise OpError(f"the index {at} is outside of a dimension of size {size}")
            return at % size, at % size + 1
        start, stop, _ = slice(int(first) if first else None, int(last) if last else None).indices(size)
    except ValueError as error:
        raise (error if isinstance(error, OpError) else OpError(f"[{text}] is no index: as in [:, 0, 2:5]")) from None
    return start, max(start, stop)


def indexed_form(text: str | None, form: Form) -> Form:
    """The form of a tensor with an index behind it."""
    for op in index_ops(text, form) if text is not None else ():
        form = op.forms((form,))[0]
    return form


def indexed_expression(text: str | None, expression: Expression, form: Form) -> tuple[Expression, Form]:
    """A tensor with an index behind it."""
    for op in index_ops(text, form) if text is not None else ():
        expression, form = Applied(op, (expression,)), op.forms((form,))[0]
    return expression, form


def new_tensor(compiled: Compiled, like: Form | None) -> Op:
    """What makes the tensor of an ``add`` that copies nothing; ``like`` is the form that it names."""
    rule = compiled.rule
    stated = rule.option("dtype")
    shape = Asked(compiled, like or Form(DTYPES["float32"], ())).sizes("shape")
    if rule.has("arange"):
        count = Asked(compiled, like or Form(DTYPES["float32"], ())).size("arange") or 0
        dtype = DTYPES["int64"] if stated is None else dtype_from(stated)
        return ops.Arange(count, dtype=dtype, shape=(-1,) if shape is None else shape)
    dtype = dtype_from(stated) if stated is not None else like.dtype if like is not None else DTYPES["float32"]
    value = 0 if rule.has("zeros_like") else 1 if rule.has("ones_like") else rule.option("full")
    if isinstance(value, str) and value.lower().replace(".", "") in ("inf", "-inf", "nan"):
        value = float(value.lower().replace(".", ""))
    if not isinstance(value, (bool, int, float)):
        raise OpError(f"'full' is '{value}'; it is a number")
    return ops.Fill(like.shape if shape is None and like is not None else shape or (), dtype, value)
