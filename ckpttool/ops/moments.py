"""What becomes of an optimizer's moments when a rule changes the parameter."""

from __future__ import annotations

from ckpttool.expressions import Applied, Expression, Leaf, Op
from ckpttool.ops.base import Mixes, Moments, Moves


def moments_of(op: Op) -> Moments:
    """What an operation does to moments; an operation that does not say it keeps them where it is bijective."""
    if isinstance(op, (Moves, Mixes)):
        return op.moments
    return "follow" if op.bijective else "are dropped"


def for_moments(expression: Expression) -> Expression | None:
    """The expression that the parameters' moments go through; None where they must start afresh.

    Casts are left out, since moments have a type of their own; a vocabulary's new rows get zeros.
    """
    if isinstance(expression, Leaf):
        return expression
    op = expression.op
    what = moments_of(op)
    if what == "are dropped" or not expression.inputs:
        return None
    inputs = [for_moments(part) for part in expression.inputs]
    found = tuple(part for part in inputs if part is not None)
    if len(found) < len(inputs):
        return None
    if what == "stay":
        return found[0]
    other = op.for_moments() if isinstance(op, (Moves, Mixes)) else op
    return None if other is None else Applied(other, found, expression.part)
