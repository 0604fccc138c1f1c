"""Operations that fit a tensor, and expressions that are made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import strategies as st

from ckpttool import ops
from ckpttool.dtypes import DType
from ckpttool.expressions import Applied, Expression, Form, Leaf, Op
from ckpttool.testing.strategies.geometry import dtypes, shapes


@dataclass(frozen=True, slots=True)
class Grown:
    """An expression, the form of its result, and the forms of its leaves by name."""

    expression: Expression
    form: Form
    leaves: tuple[tuple[str, Form], ...]


def forms(
    *, elements: st.SearchStrategy[DType] | None = None, min_dims: int = 0, max_dims: int = 4, min_side: int = 0
) -> st.SearchStrategy[Form]:
    """Element types and shapes. Shrinks to a float32 scalar."""
    kinds = dtypes() if elements is None else elements
    return st.builds(Form, kinds, shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side))


def moves(form: Form, *, bijective: bool = False) -> st.SearchStrategy[Op]:
    """Operations on a tensor of this form alone that move elements as bits; with ``bijective`` none are lost."""
    rank = len(form.shape)
    found: list[st.SearchStrategy[Op]] = [
        st.permutations(range(rank)).map(lambda axes: ops.Permute(tuple(axes))),
        _factors(math.prod(form.shape)).map(ops.Reshape),
        st.integers(-rank - 1, rank).map(ops.Unsqueeze),
        _view_permutes(form),
        st.just(ops.Squeeze()),
    ]
    if rank:
        dim = st.integers(-rank, rank - 1)
        found.append(st.builds(ops.Transpose, dim, dim))
        found.append(st.builds(ops.Roll, dim, st.integers(-7, 7)))
        found.append(dim.flatmap(lambda d: _reorders(form, d)))
        found.append(dim.flatmap(lambda d: _splits(form, d)))
        full = [d for d in range(-rank, rank) if form.shape[d]]
        found.extend([st.sampled_from(full).map(ops.Unstack)] if full else [])
    if rank and not bijective:
        place = st.none() | st.integers(-6, 6)
        found.append(st.builds(ops.Slice, dim, place, place, st.integers(1, 3)))
        found.append(st.lists(st.integers(0, 2), min_size=rank, max_size=rank + 1).map(_repeat))
    return st.one_of(found)


@st.composite
def expressions(draw: st.DrawFn, *, elements: st.SearchStrategy[DType] | None = None, max_steps: int = 6) -> Grown:
    """Expressions that move elements: parts are used again, joined, and inverted. Shrinks to a bare leaf."""
    dtype = draw(dtypes() if elements is None else elements)
    given = draw(st.lists(forms(elements=st.just(dtype)), min_size=1, max_size=3))
    leaves = tuple((f"leaf{i}", form) for i, form in enumerate(given))
    pool: list[tuple[Expression, Form]] = [(Leaf(name), form) for name, form in leaves]
    for _ in range(draw(st.integers(0, max_steps))):
        pool.extend(draw(st.one_of(_applied(pool), _joined(pool), _undone(pool))))
    expression, form = pool[-1]
    return Grown(expression, form, leaves)


def _outputs(op: Op, inputs: list[tuple[Expression, Form]]) -> list[tuple[Expression, Form]]:
    made = op.forms(tuple(form for _, form in inputs))
    parts = tuple(expression for expression, _ in inputs)
    return [(Applied(op, parts, i), form) for i, form in enumerate(made)]


@st.composite
def _applied(draw: st.DrawFn, pool: list[tuple[Expression, Form]]) -> list[tuple[Expression, Form]]:
    chosen = draw(st.sampled_from(pool))
    op = draw(moves(chosen[1]))
    found = _outputs(op, [chosen])
    # Repeating again and again would grow without end.
    return found if sum(math.prod(form.shape) for _, form in found) < 10_000 else []


@st.composite
def _joined(draw: st.DrawFn, pool: list[tuple[Expression, Form]]) -> list[tuple[Expression, Form]]:
    form = draw(st.sampled_from(pool))[1]
    alike = [item for item in pool if item[1] == form]
    chosen = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3))
    rank = len(form.shape)
    stack = st.integers(-rank - 1, rank).map(ops.Stack)
    op = draw(stack | st.integers(-rank, rank - 1).map(ops.Concat) if rank else stack)
    return _outputs(op, chosen)


@st.composite
def _undone(draw: st.DrawFn, pool: list[tuple[Expression, Form]]) -> list[tuple[Expression, Form]]:
    """The inverse of an operation applied to all of what it gave."""
    forms = dict(pool)
    usable = [e for e, _ in pool if isinstance(e, Applied) and e.op.bijective and e.inputs]
    if not usable:
        return []
    chosen = draw(st.sampled_from(usable))
    inputs = tuple(forms[part] for part in chosen.inputs)
    back = chosen.op.inverse(inputs)
    made = chosen.op.forms(inputs)
    return [] if back is None else _outputs(
        back, [(Applied(chosen.op, chosen.inputs, i), form) for i, form in enumerate(made)]
    )  # fmt: skip


def _repeat(times: list[int]) -> Op:
    return ops.Repeat(tuple(times))


@st.composite
def _factors(draw: st.DrawFn, numel: int) -> tuple[int, ...]:
    """A shape of so many elements, at times with -1 in it."""
    made: list[int] = []
    left = numel
    for _ in range(draw(st.integers(0, 3))):
        size = draw(st.sampled_from([n for n in range(1, min(left, 12) + 1) if left % n == 0] or [left]))
        made.append(size)
        left = left // size if size else 1
    made.insert(draw(st.integers(0, len(made))), left)
    if numel and draw(st.booleans()):
        made[draw(st.integers(0, len(made) - 1))] = -1
    return tuple(made)


@st.composite
def _view_permutes(draw: st.DrawFn, form: Form) -> Op:
    numel = math.prod(form.shape)
    view = draw(_factors(numel))
    axes = draw(st.permutations(range(len(view))))
    return ops.ViewPermute(view, tuple(axes), draw(st.none() | _factors(numel)))


@st.composite
def _reorders(draw: st.DrawFn, form: Form, dim: int) -> Op:
    return ops.Reorder(dim, tuple(draw(st.permutations(range(form.shape[dim])))))


@st.composite
def _splits(draw: st.DrawFn, form: Form, dim: int) -> Op:
    size = form.shape[dim]
    if draw(st.booleans()):
        sections = draw(st.sampled_from([n for n in range(1, max(size, 1) + 1) if size % n == 0]))
        return ops.Split(sections=sections, dim=dim)
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=2)))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    if draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    return ops.Split(sizes=tuple(sizes), dim=dim)
