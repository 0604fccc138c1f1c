"""Tensors that are computed when they are written: expressions over what lies in files."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from ckpttool.draft import Input, Made
from ckpttool.dtypes import DType
from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Form, Leaf, OpError
from ckpttool.ops.base import shown
from ckpttool.ops.blocks import contiguous
from ckpttool.ops.simplifying import Simplifier, simplify
from ckpttool.source import Source
from ckpttool.writing.elements import decode, encode
from ckpttool.writing.fetching import component_width, fetched
from ckpttool.writing.ranges import as_copied
from ckpttool.writing.views import view_of

__all__ = ["as_copied", "evaluate", "simplify"]


def evaluate(made: Made, swapped: bool = False, *, workers: int = 1) -> memoryview:
    """The row-major bytes of a computed tensor, big-endian where ``swapped``.

    Reads each input once, by span, and lets it go as soon as nothing needs it: memory is that of the inputs and
    the result. ``workers`` threads share the copy of what was transposed. Raises ``OpError`` where operations, or
    tensors and storages, do not fit, and ``Unreadable`` where a file cannot be read.
    """
    evaluation = _Evaluation(made.inputs)
    expression = evaluation.simplifier.simple(made.expression)
    found = evaluation.simplifier.form(expression)
    if found != made.form:
        raise OpError(
            f"the result is {found.dtype.name} {shown(found.shape)}, "
            f"the plan has {made.form.dtype.name} {shown(made.form.shape)}"
        )
    return _bytes(evaluation.result(expression), made.form.dtype, swapped, workers)


class _Evaluation:
    """Values of sub-expressions, each kept until its last use."""

    def __init__(self, inputs: tuple[Input, ...]) -> None:
        self._inputs = {given.name: given for given in inputs}
        self._opened: dict[str, Source] = {}
        self._uses: Counter[Expression] = Counter()
        self._values: dict[Expression, np.ndarray] = {}
        self.simplifier = Simplifier(
            {name: Form(given.tensor.dtype, given.tensor.shape) for name, given in self._inputs.items()}
        )

    def result(self, expression: Expression) -> np.ndarray:
        try:
            self._count(expression, set())
            return self._take(expression)
        finally:
            for source in self._opened.values():
                source.close()

    def _count(self, expression: Expression, seen: set[tuple[object, ...]]) -> None:
        self._uses[expression] += 1
        if isinstance(expression, Leaf) or self._part(expression) is not None:
            return
        if (expression.op, expression.inputs) not in seen:
            seen.add((expression.op, expression.inputs))
            for part in expression.inputs:
                self._count(part, seen)

    def _take(self, expression: Expression) -> np.ndarray:
        """A value, forgotten here with its last use."""
        if expression not in self._values:
            self._make(expression)
        self._uses[expression] -= 1
        return self._values[expression] if self._uses[expression] else self._values.pop(expression)

    def _part(self, applied: Applied) -> Input | None:
        """A view that needs at most half of what its input spans: read alone, so that the rest never is."""
        found = view_of(applied, self._inputs)
        if found is None or 2 * found.tensor.extent > self._inputs[found.name].tensor.extent:
            return None
        return found

    def _make(self, expression: Expression) -> None:
        if isinstance(expression, Leaf):
            self._values[expression] = fetched(self._inputs[expression.name], self._opened)
            return
        alone = self._part(expression)
        if alone is not None:
            self._values[expression] = fetched(alone, self._opened)
            return
        op, forms = expression.op, self.simplifier.inputs(expression)
        arrays = [self._argument(expression, place) for place in range(len(forms))]
        with np.errstate(all="ignore"):
            made = op.compute(arrays, forms)
        for part, (array, form) in enumerate(zip(made, op.forms(forms), strict=True)):
            output = Applied(op, expression.inputs, part)
            if array.shape != form.shape:
                raise OpError(f"{op.name}: gave {shown(array.shape)} instead of {shown(form.shape)}")
            if self._uses[output]:
                self._values[output] = encode(array, form.dtype) if op.decodes else array

    def _argument(self, applied: Applied, place: int) -> np.ndarray:
        part = applied.inputs[place]
        dtype = self.simplifier.form(part).dtype
        if dtype.bits % 8:
            name = printable(part.name) if isinstance(part, Leaf) else applied.op.name
            raise OpError(f"{name}: elements of {dtype.bits} bits, and only whole bytes of 8 can be moved")
        value = self._take(part)
        return decode(value, dtype) if applied.op.decodes else value


def _bytes(bits: np.ndarray, dtype: DType, swapped: bool, workers: int) -> memoryview:
    """Row-major bytes of elements."""
    flat = contiguous(bits, workers).reshape(-1)
    component = component_width(dtype)
    if component > 1 and swapped == (sys.byteorder == "little"):
        flat = flat.view(f"u{component}").byteswap(inplace=flat.flags.writeable)
    return flat.view("u1").data
