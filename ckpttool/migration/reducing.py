"""What stages undo of each other is not done at all: expressions are made as short as they can be. Pure."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.expressions import Applied, Expression, Leaf, OpError
from ckpttool.ops.simplifying import Simplifier
from ckpttool.rewriting import Names, Rewriting


def reduced(rewriting: Rewriting, names: Names) -> Rewriting:
    """The rewriting with fewer operations and the same result: all parts of a split put together are a plain copy.

    An operation that cannot be saved stays as its rule spells it. Linear in the operations.
    """
    if all(isinstance(output.expression, Leaf) for output in rewriting.outputs):
        return rewriting
    simplifier = Simplifier({one.name: one.form for one in names.items if one.form is not None})
    outputs = tuple(
        output
        if isinstance(output.expression, Leaf)
        else replace(output, expression=_shorter(output.expression, simplifier))
        for output in rewriting.outputs
    )
    return replace(rewriting, outputs=outputs)


def _shorter(expression: Expression, simplifier: Simplifier) -> Expression:
    try:
        return _saved(expression, simplifier)
    except OpError:
        # Whoever makes the tensor says which operation does not fit, and where.
        return expression


def _saved(expression: Expression, simplifier: Simplifier) -> Expression:
    if isinstance(expression, Leaf):
        return expression
    whole = simplifier.simple(expression)
    if isinstance(whole, Leaf):
        return whole
    parts = Applied(expression.op, tuple(_saved(part, simplifier) for part in expression.inputs), expression.part)
    return whole if _count(whole) < _count(parts) else parts


def _count(expression: Expression) -> int:
    return 0 if isinstance(expression, Leaf) else 1 + sum(_count(part) for part in expression.inputs)
