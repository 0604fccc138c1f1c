"""Expressions that are nothing but byte ranges of files: rows of contiguous tensors, apart or together."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TypeAlias

from ckpttool.draft import Copied, Input, Made
from ckpttool.expressions import Applied, Expression, Form, Leaf
from ckpttool.model import Span
from ckpttool.ops import Concat, Reorder, Reshape, Roll, Slice, Split, Stack, Unstack
from ckpttool.ops.base import axis
from ckpttool.ops.simplifying import Simplifier

Spans: TypeAlias = "tuple[Span, ...]"

MOST_SPANS = 256
"""Ranges that a tensor may be copied from one by one; beyond that reading it at once is faster."""


def as_copied(made: Made, swapped: bool = False) -> Copied | None:
    """The computed tensor as ranges of files, where nothing needs to be computed; else None.

    ``swapped`` is the byte order of the output, as ``evaluate`` takes it. The recorded checksum comes along where
    the result is one whole storage. Reads nothing. Raises ``OpError`` where an operation does not fit its inputs.
    """
    inputs = {given.name: given for given in made.inputs}
    forms = {name: Form(given.tensor.dtype, given.tensor.shape) for name, given in inputs.items()}
    simplifier = Simplifier(forms)
    expression = simplifier.simple(made.expression)
    if simplifier.form(expression) != made.form:
        return None
    spans = _spans(expression, simplifier, inputs, swapped)
    if spans is None or len(spans) > MOST_SPANS:
        return None
    whole = [s for s in (given.storage for given in made.inputs) if (s.span,) == spans]
    return Copied(spans, whole[0].checksum if whole else None)


def _spans(expression: Expression, simplifier: Simplifier, inputs: dict[str, Input], swapped: bool) -> Spans | None:
    if isinstance(expression, Leaf):
        return _leaf(inputs[expression.name], swapped)
    parts = [_spans(part, simplifier, inputs, swapped) for part in expression.inputs]
    found = [part for part in parts if part is not None]
    if not parts or len(found) < len(parts):
        return None
    return _applied(expression, found, simplifier)


def _leaf(given: Input, swapped: bool) -> Spans | None:
    tensor, storage = given.tensor, given.storage
    span = None if given.inflates_to is not None else storage.span
    single = tensor.dtype.bits <= 8
    if span is None or storage.inline is not None or not (single or storage.swapped == swapped):
        return None
    first = tensor.offset * tensor.dtype.bits
    if len(tensor.shape) != len(tensor.stride) or first % 8 or first < 0 or not tensor.contiguous:
        return None
    if not tensor.nbytes:
        return ()
    start, stop = first // 8, first // 8 + tensor.nbytes
    # A span that is shorter than its storage is damaged.
    if stop > span.nbytes or span.nbytes != storage.nbytes:
        return None
    return _joined([Span(span.source, span.start + start, span.start + stop)])


def _applied(applied: Applied, parts: list[Spans], simplifier: Simplifier) -> Spans | None:
    op, forms = applied.op, simplifier.inputs(applied)
    form, spans = forms[0], parts[0]
    if isinstance(op, Reshape):
        return spans
    if not isinstance(op, (Concat, Reorder, Roll, Slice, Split, Stack, Unstack)):
        return None
    dim = axis(op.name, op.dim, form, isinstance(op, Stack))
    if prod(form.shape[:dim]) != 1:
        return None
    if isinstance(op, (Concat, Stack)):
        return _joined(span for part in parts for span in part)
    runs = _runs(applied, form.shape[dim], form)
    if runs is None or len(runs) > MOST_SPANS:
        return None
    row = form.dtype.nbytes(prod(form.shape[dim + 1 :]))
    return _joined(span for start, stop in runs for span in _cut(spans, start * row, stop * row))


def _runs(applied: Applied, size: int, form: Form) -> list[tuple[int, int]] | None:
    """The rows of the input that make up the output, as ranges."""
    op, part = applied.op, applied.part
    if isinstance(op, Split):
        pieces = op.pieces(form)
        return [(sum(pieces[:part]), sum(pieces[: part + 1]))]
    if isinstance(op, Unstack):
        return [(part, part + 1)]
    if isinstance(op, Roll):
        cut = -op.shift % max(size, 1)
        return [(cut, size), (0, cut)]
    if isinstance(op, Reorder):
        return [(row, row + 1) for row in op.order(form)]
    assert isinstance(op, Slice)
    rows = op.rows(size)
    return [(rows.start, rows.start + len(rows))] if rows.step == 1 else [(row, row + 1) for row in rows]


def _cut(spans: Spans, start: int, stop: int) -> Iterable[Span]:
    """Bytes ``start`` to ``stop`` of what the spans hold one after the other."""
    at = 0
    for span in spans:
        low, high = max(start, at), min(stop, at + span.nbytes)
        if low < high:
            yield Span(span.source, span.start + low - at, span.start + high - at)
        at += span.nbytes


def _joined(spans: Iterable[Span]) -> Spans:
    """Spans without empty ones, neighbours as one."""
    made: list[Span] = []
    for span in spans:
        if made and made[-1].source == span.source and made[-1].stop == span.start:
            made[-1] = Span(span.source, made[-1].start, span.stop)
        elif span.nbytes:
            made.append(span)
    return tuple(made)
