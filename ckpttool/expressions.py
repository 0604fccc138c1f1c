"""How a tensor that is yet to be written follows from tensors that are there: pure, printable, invertible by parts.

An expression names its inputs; it does not hold them. So what a rule says about a weight applies unchanged to the
weight's moments and to its EMA twin: only the binding of names to tensors differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from ckpttool.dtypes import DType
from ckpttool.frozen import dataclass

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Form:
    """What is known of a tensor without its content: element type and shape."""

    dtype: DType
    shape: tuple[int, ...]


class OpError(ValueError):
    """An operation does not fit the tensors it is given; the text says which numbers disagree."""


@runtime_checkable
class Op(Protocol):
    """One operation on tensors, from one or more inputs to one or more outputs. Frozen, hashable, picklable.

    ``bijective`` says that outputs hold the inputs' elements, each once: such an operation applies to moments as
    it does to the parameter. ``decodes`` says that elements are read as numbers; others move them as bits, which
    any whole-byte type allows.
    """

    @property
    def name(self) -> str: ...

    @property
    def bijective(self) -> bool: ...

    @property
    def decodes(self) -> bool: ...

    def forms(self, inputs: tuple[Form, ...]) -> tuple[Form, ...]:
        """The outputs' forms. Raises ``OpError`` where the inputs do not fit."""
        ...

    def compute(self, arrays: list[np.ndarray], inputs: tuple[Form, ...]) -> list[np.ndarray]:
        """The outputs. Arrays of bits are of the unsigned type of the element's width; decoded ones hold numbers."""
        ...

    def inverse(self, inputs: tuple[Form, ...]) -> Op | None:
        """The operation that leads from the outputs back to these inputs; None where nothing does."""
        ...


@dataclass(frozen=True, slots=True)
class Leaf:
    """An input, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Applied:
    """One output of an operation: ``part`` counts its outputs."""

    op: Op
    inputs: tuple[Expression, ...]
    part: int = 0


Expression: TypeAlias = "Leaf | Applied"


def leaves(expression: Expression) -> tuple[str, ...]:
    """The names of the inputs, in order of first mention, each once."""
    return tuple(dict.fromkeys(_leaves(expression)))


def _leaves(expression: Expression) -> Iterator[str]:
    if isinstance(expression, Leaf):
        yield expression.name
        return
    for part in expression.inputs:
        yield from _leaves(part)


def is_bijective(expression: Expression) -> bool:
    """Whether the result holds elements of its inputs as they are: so moments may follow."""
    return isinstance(expression, Leaf) or (
        expression.op.bijective and all(is_bijective(part) for part in expression.inputs)
    )


def form_of(expression: Expression, forms: dict[str, Form]) -> Form:
    """The result's form. Raises ``OpError`` where an operation does not fit its inputs."""
    if isinstance(expression, Leaf):
        return forms[expression.name]
    inputs = tuple(form_of(part, forms) for part in expression.inputs)
    return expression.op.forms(inputs)[expression.part]
