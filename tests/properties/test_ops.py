"""Laws of operations: what they move comes back, and what they say of forms is what they compute."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given, strategies as st

from ckpttool import ops
from ckpttool.expressions import Applied, Expression, Form, Leaf, Op, form_of, is_bijective
from ckpttool.ops.blocks import contiguous, copy_into
from ckpttool.ops.simplifying import simplify
from ckpttool.testing import strategies
from ckpttool.testing.strategies import Grown


def numbered(form: Form, start: int = 0) -> np.ndarray:
    """An array of distinct elements, so that a misplaced one shows."""
    return np.arange(start, start + int(np.prod(form.shape)), dtype="u8").reshape(form.shape)


def naive(expression: Expression, arrays: dict[str, np.ndarray], forms: dict[str, Form]) -> np.ndarray:
    """Every operation carried out as it stands, on row-major copies."""
    if isinstance(expression, Leaf):
        return arrays[expression.name]
    inputs = tuple(form_of(part, forms) for part in expression.inputs)
    given = [np.array(naive(part, arrays, forms), order="C") for part in expression.inputs]
    return expression.op.compute(given, inputs)[expression.part]


@st.composite
def fitting(draw: st.DrawFn, *, bijective: bool = True) -> tuple[Op, Form]:
    form = draw(strategies.forms())
    return draw(strategies.moves(form, bijective=bijective)), form


@given(fitting())
def test_the_inverse_gives_the_inputs_back(case: tuple[Op, Form]) -> None:
    op, form = case
    array = numbered(form)
    made = op.compute([array], (form,))
    back = op.inverse((form,))
    assert op.bijective
    assert back is not None
    (again,) = back.compute(list(made), op.forms((form,)))
    assert back.forms(op.forms((form,))) == (form,)
    assert np.array_equal(again, array)


@given(strategies.forms(max_dims=3), st.integers(1, 3), st.data())
def test_joining_is_undone_by_its_inverse(form: Form, count: int, data: st.DataObject) -> None:
    rank = len(form.shape)
    options = [ops.Stack(d) for d in range(-rank - 1, rank + 1)] + [ops.Concat(d) for d in range(-rank, rank)]
    op = data.draw(st.sampled_from(options))
    inputs = (form,) * count
    arrays = [numbered(form, 1000 * i) for i in range(count)]
    back = op.inverse(inputs)
    assert back is not None
    joined = op.compute(list(arrays), inputs)
    again = back.compute(joined, op.forms(inputs))
    assert back.forms(op.forms(inputs)) == inputs
    assert all(np.array_equal(a, b) for a, b in zip(again, arrays, strict=True))


@given(fitting(bijective=False))
def test_forms_are_what_is_computed(case: tuple[Op, Form]) -> None:
    op, form = case
    made = op.compute([numbered(form)], (form,))
    assert [array.shape for array in made] == [found.shape for found in op.forms((form,))]


@given(fitting(bijective=False))
def test_operations_are_plain_values(case: tuple[Op, Form]) -> None:
    op, _ = case
    assert pickle.loads(pickle.dumps(op)) == op
    assert isinstance(op, Op)
    assert len({op, pickle.loads(pickle.dumps(op))}) == 1


@given(strategies.expressions())
def test_simpler_expressions_give_the_same(grown: Grown) -> None:
    forms = dict(grown.leaves)
    arrays = {name: numbered(form, 100_000 * i) for i, (name, form) in enumerate(grown.leaves)}
    simple = simplify(grown.expression, forms)
    assert form_of(simple, forms) == grown.form
    assert np.array_equal(naive(simple, arrays, forms), naive(grown.expression, arrays, forms))


@given(fitting())
def test_an_operation_and_its_inverse_are_nothing(case: tuple[Op, Form]) -> None:
    op, form = case
    back = op.inverse((form,))
    assert back is not None
    leaf = Leaf("a")
    parts = tuple(Applied(op, (leaf,), i) for i in range(len(op.forms((form,)))))
    assert simplify(Applied(back, parts), {"a": form}) == leaf


@given(strategies.expressions())
def test_moments_follow_what_is_bijective(grown: Grown) -> None:
    followed = ops.for_moments(grown.expression)
    if is_bijective(grown.expression):
        assert followed == grown.expression


@given(
    strategies.shapes(min_dims=1, min_side=1, max_side=7),
    st.sampled_from(["u1", "u2", "u4", "u8", "c16"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 3),
    st.data(),
)
def test_blocks_copy_what_assignment_copies(
    shape: tuple[int, ...], kind: str, rows: int, line: int, workers: int, data: st.DataObject
) -> None:
    from ckpttool.ops import blocks

    whole = np.arange(int(np.prod(shape))).astype(kind).reshape(shape)
    source = whole.transpose(data.draw(st.permutations(range(len(shape)))))
    source = source[:: data.draw(st.sampled_from([1, 2, -1]))]
    kept = blocks.SMALL, blocks.LINE, blocks.ROWS
    try:
        blocks.SMALL, blocks.LINE, blocks.ROWS = 0, line, rows
        target = np.empty(source.shape, kind)
        copy_into(target, source, workers)
        made = contiguous(source, workers)
    finally:
        blocks.SMALL, blocks.LINE, blocks.ROWS = kept
    assert np.array_equal(target, source)
    assert np.array_equal(made, source)
    assert made.flags.c_contiguous
