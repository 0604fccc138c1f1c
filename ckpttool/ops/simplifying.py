"""Expressions with the same result that take fewer steps: what a rule and its inverse undo is not done at all.

Only movements of elements are simplified, so results are the same to the bit; values that are rounded stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ckpttool.expressions import Applied, Expression, Form, Leaf, Op, OpError
from ckpttool.ops.base import axis
from ckpttool.ops.cast import Cast
from ckpttool.ops.concat import Concat, Stack
from ckpttool.ops.fill import FillLike
from ckpttool.ops.permute import Permute, Transpose
from ckpttool.ops.reorder import Reorder
from ckpttool.ops.reshape import Reshape, Squeeze, Unsqueeze
from ckpttool.ops.roll import Roll
from ckpttool.ops.slice import Slice
from ckpttool.ops.split import Split, Unstack
from ckpttool.ops.view_permute import ViewPermute


def simplify(expression: Expression, forms: Mapping[str, Form]) -> Expression:
    """An expression of the same form and content, made of fewer operations and fewer kinds of them.

    ``forms`` are the leaves' by name. Transpose and squeezing are spelled as ``Permute`` and ``Reshape``. Raises
    ``OpError`` where an operation does not fit its inputs.
    """
    return Simplifier(forms).simple(expression)


class Simplifier:
    """Simplifies expressions over one set of leaves, and remembers the form of each."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms: dict[Expression, Form] = {Leaf(name): form for name, form in forms.items()}

    def form(self, expression: Expression) -> Form:
        """The form of an expression's result."""
        found = self._forms.get(expression)
        if found is None:
            if isinstance(expression, Leaf):
                raise OpError(f"there is no input named {expression.name!r}")
            inputs = self.inputs(expression)
            made = expression.op.forms(inputs)
            if not 0 <= expression.part < len(made):
                raise OpError(f"{expression.op.name}: output {expression.part} is asked for, there are {len(made)}")
            found = self._forms[expression] = made[expression.part]
        return found

    def inputs(self, applied: Applied) -> tuple[Form, ...]:
        """The forms of what an operation is applied to."""
        return tuple(self.form(part) for part in applied.inputs)

    def simple(self, expression: Expression) -> Expression:
        """The expression with every part of it simplified."""
        if isinstance(expression, Leaf):
            self.form(expression)
            return expression
        inputs = tuple(self.simple(part) for part in expression.inputs)
        return self.apply(expression.op, inputs, expression.part)

    def apply(self, op: Op, inputs: tuple[Expression, ...], part: int = 0) -> Expression:
        """An operation applied to simple expressions, simplified."""
        made = Applied(op, inputs, part)
        self.form(made)
        rule = _RULES.get(type(op))
        found = None if rule is None else rule(self, made, op)
        return made if found is None else found


_Rule = Callable[[Simplifier, Applied, Op], "Expression | None"]


def _transpose(self: Simplifier, made: Applied, op: Op) -> Expression:
    assert isinstance(op, Transpose)
    return self.apply(Permute(op.axes(self.form(made.inputs[0]))), made.inputs)


def _permute(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    assert isinstance(op, Permute)
    inner = made.inputs[0]
    shape = self.form(inner).shape
    axes = tuple(a % len(shape) for a in op.axes)
    long = [a for a in axes if shape[a] != 1]
    if long == sorted(long):
        return self.apply(Reshape(self.form(made).shape), made.inputs)
    if isinstance(inner, Applied) and isinstance(inner.op, Permute):
        first = tuple(a % len(shape) for a in inner.op.axes)
        return self.apply(Permute(tuple(first[a] for a in axes)), inner.inputs)
    return None if axes == op.axes else self.apply(Permute(axes), made.inputs)


def _reshape(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    inner, shape = made.inputs[0], self.form(made).shape
    if shape == self.form(inner).shape:
        return inner
    if isinstance(inner, Applied) and isinstance(inner.op, Reshape):
        return self.apply(Reshape(shape), inner.inputs)
    return None if op == Reshape(shape) else Applied(Reshape(shape), made.inputs)


def _view_permute(self: Simplifier, made: Applied, op: Op) -> Expression:
    assert isinstance(op, ViewPermute)
    view, axes = op.steps(self.form(made.inputs[0]))
    viewed = self.apply(Reshape(view), made.inputs)
    return self.apply(Reshape(self.form(made).shape), (self.apply(Permute(axes), (viewed,)),))


def _cast(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    return made.inputs[0] if self.form(made) == self.form(made.inputs[0]) else None


def _fill_like(self: Simplifier, made: Applied, op: Op) -> Expression:
    assert isinstance(op, FillLike)
    return Applied(op.fill(self.form(made.inputs[0])), ())


def _joined(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    """Concat and Stack: all parts of one Split or Unstack in order are what was taken apart."""
    first = made.inputs[0]
    if isinstance(op, Concat) and len(made.inputs) == 1:
        return first
    if not isinstance(first, Applied):
        return None
    undone = first.op.inverse(self.inputs(first)) if isinstance(first.op, (Split, Unstack)) else None
    if type(undone) is not type(op) or _dim(undone, self.form(made)) != _dim(op, self.form(made)):
        return None
    count = len(first.op.forms(self.inputs(first)))
    parts = tuple(Applied(first.op, first.inputs, part) for part in range(count))
    return first.inputs[0] if parts == made.inputs else None


def _taken_apart(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    """Split and Unstack: a part of what Concat or Stack put together is what went in there."""
    assert isinstance(op, (Split, Unstack))
    inner = made.inputs[0]
    outer = op.forms(self.inputs(made))
    if isinstance(op, Split) and len(outer) == 1:
        return inner
    if not isinstance(inner, Applied) or not isinstance(inner.op, (Concat, Stack)):
        return None
    undone = op.inverse(self.inputs(made))
    same = type(undone) is type(inner.op) and _dim(undone, self.form(inner)) == _dim(inner.op, self.form(inner))
    return inner.inputs[made.part] if same and outer == self.inputs(inner) else None


def _dim(op: Op | None, joined: Form) -> int:
    """The dimension of what Concat or Stack made, counted from the front."""
    assert isinstance(op, (Concat, Stack))
    return axis(op.name, op.dim, joined)


def _slice(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    whole = self.form(made) == self.form(made.inputs[0])
    return made.inputs[0] if whole else None


def _roll(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    assert isinstance(op, Roll)
    inner, form = made.inputs[0], self.form(made)
    dim = axis(op.name, op.dim, form)
    shift = op.shift % max(form.shape[dim], 1)
    if not shift:
        return inner
    if isinstance(inner, Applied) and isinstance(inner.op, Roll) and axis(op.name, inner.op.dim, form) == dim:
        return self.apply(Roll(dim, op.shift + inner.op.shift), inner.inputs)
    return None


def _reorder(self: Simplifier, made: Applied, op: Op) -> Expression | None:
    assert isinstance(op, Reorder)
    inner, form = made.inputs[0], self.form(made)
    dim, order = axis(op.name, op.dim, form), op.order(form)
    if list(order) == sorted(order):
        return inner
    if isinstance(inner, Applied) and isinstance(inner.op, Reorder) and axis(op.name, inner.op.dim, form) == dim:
        first = inner.op.order(form)
        return self.apply(Reorder(dim, tuple(first[i] for i in order)), inner.inputs)
    return None


_RULES: dict[type, _Rule] = {
    Cast: _cast,
    Concat: _joined,
    FillLike: _fill_like,
    Permute: _permute,
    Reorder: _reorder,
    Reshape: _reshape,
    Roll: _roll,
    Slice: _slice,
    Split: _taken_apart,
    Squeeze: _reshape,
    Stack: _joined,
    Transpose: _transpose,
    Unsqueeze: _reshape,
    Unstack: _taken_apart,
    ViewPermute: _view_permute,
}
