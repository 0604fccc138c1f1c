"""Expressions over tensors that are yet to be computed, put over what lies in files: several plans, one write.

A plan that starts from the draft of another one meets tensors without bytes. What they are made from takes their
place, so that nothing has to be written in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckpttool.draft import Content, Copied, Held, Input, Made
from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Leaf
from ckpttool.migration.errors import MigrationError


def is_grounded(inputs: Sequence[Input], contents: Sequence[Content]) -> bool:
    """Whether every input's bytes can be read as they are."""
    return not any(isinstance(content, Made) for content in contents) and all(
        one.storage.span is not None or one.storage.inline is not None for one in inputs
    )


def grounded(
    expression: Expression, inputs: Sequence[Input], contents: Sequence[Content]
) -> tuple[Expression, tuple[Input, ...]]:
    """The same result from tensors that lie in files; ``contents`` are those of the inputs' storages, in order.

    Equal inputs come once; different ones of one name are told apart. Raises ``MigrationError`` for a view into a
    tensor that is yet to be computed.
    """
    merged: dict[str, Input] = {}
    swaps: dict[str, Expression] = {}
    for one, content in zip(inputs, contents, strict=True):
        if isinstance(content, Made):
            _check_whole(one, content)
            inner = {below.name: Leaf(_added(merged, below)) for below in content.inputs}
            swaps[one.name] = substituted(content.expression, inner)
        else:
            swaps[one.name] = Leaf(_added(merged, at_hand(one, content)))
    return substituted(expression, swaps), tuple(merged.values())


def _added(merged: dict[str, Input], one: Input) -> str:
    """The name under which an input stands among others: its own unless another tensor has it."""
    name = one.name
    while name in merged and merged[name] != replace(one, name=name):
        name += "'"
    merged.setdefault(name, replace(one, name=name))
    return name


def at_hand(one: Input, content: Content) -> Input:
    """The input with the place of its bytes, and whether they lie deflated there."""
    storage = one.storage
    if isinstance(content, Copied) and len(content.spans) == 1:
        span = storage.span or content.spans[0]
        return replace(one, storage=replace(storage, span=span), inflates_to=content.inflates_to)
    if isinstance(content, Held) and storage.span is None and storage.inline is None:
        return replace(one, storage=replace(storage, inline=content.data))
    return one


def _check_whole(one: Input, made: Made) -> None:
    tensor = one.tensor
    whole = tensor.offset == 0 and tensor.contiguous
    if not whole or (tensor.dtype, tensor.shape) != (made.form.dtype, made.form.shape):
        raise MigrationError(
            f"{printable(one.name)} – is a view into a tensor that an earlier step computes; carry the steps out in "
            "two runs"
        )


def substituted(expression: Expression, by: Mapping[str, Expression]) -> Expression:
    """The expression with other ones in the place of its leaves; leaves that are not named stay."""
    if isinstance(expression, Leaf):
        return by.get(expression.name, expression)
    known: dict[Expression, Expression] = {}
    inputs = []
    for part in expression.inputs:
        if part not in known:
            known[part] = substituted(part, by)
        inputs.append(known[part])
    return Applied(expression.op, tuple(inputs), expression.part)
