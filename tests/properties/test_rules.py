"""Laws of rules: the way back leads back, bit for bit; two runs do what one does; printed rules are the same rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Applied, Expression, Form, Leaf
from ckpttool.migration import RuleError, RuleFile, dump, load, names_after, rewrite, unreturned
from ckpttool.rewriting import Named, Names, Rewriting

Tensors = dict[str, np.ndarray]
Family = tuple[str, dict[str, tuple[int, ...]]]

INT = DTYPES["int32"]


def layers(count: int, *names: tuple[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{i}.{name}": shape for i in range(count) for name, shape in names}


FAMILIES: list[Callable[[int], Family]] = [
    lambda n: ("- rename: 'P.{i}.{rest...}'\n  to: 'P.blocks.{i}.{rest...}'\n", layers(n, ("a.w", (2,)), ("b", (3,)))),
    lambda n: ("- rename: 'P.{i}.w'\n  to: 'P.{i+1}.w'\n", layers(n, ("w", (2,)))),
    lambda n: ("- rename: 'P.{i}.w'\n  to: 'P.{n_layer-1-i}.v'\n", layers(n, ("w", (2,)))),
    lambda n: ("- rename: 'P.{i}.w'\n  to: 'P.{i//3}.{i%3}.w'\n", layers(n, ("w", (2,)))),
    lambda n: ("- rename: 'P.{i}.{wq|wk}'\n  to: 'P.{q|k}.{i}'\n", layers(n, ("wq", (2,)), ("wk", (3,)))),
    lambda n: ("- rename: 'P.{i}.a'\n  to: 'P.{i}.b'\n- rename: 'P.{i}.b'\n  to: 'P.{i}.a'\n",
               layers(n, ("a", (2,)), ("b", (2,)))),
    lambda n: ("- rename: 'P.{i}.n0'\n  to: 'P.{i}.n1'\n- rename: 'P.{i}.n1'\n  to: 'P.{i}.n2'\n",
               layers(n, ("n0", (2,)), ("n1", (2,)))),
    lambda n: ("- split: 'P.{i}.in_{w|b}'\n  into: ['P.{i}.q.{w|b}', 'P.{i}.k.{w|b}', 'P.{i}.v.{w|b}']\n",
               layers(n, ("in_w", (6, 2)), ("in_b", (6,)))),
    lambda n: ("- split: 'P.{i}.w'\n  into: ['P.{i}.a', 'P.{i}.b']\n  sizes: [1, 3]\n  dim: 1\n",
               layers(n, ("w", (2, 4)))),
    lambda n: ("- concat: ['P.{i}.a', 'P.{i}.b']\n  into: 'P.{i}.ab'\n  sizes: [2, 3]\n",
               layers(n, ("a", (2, 2)), ("b", (3, 2)))),
    lambda n: ("- stack: 'P.{i}.w'\n  into: 'P.w'\n  dim: 1\n", layers(n, ("w", (2, 3)))),
    lambda n: ("- unstack: 'P.{i}.w'\n  into: 'P.{i}.e.{e}.w'\n", layers(n, ("w", (3, 2)))),
    lambda n: ("- transpose: 'P.{i}.w'\n- rename: 'P.{i}.w'\n  to: 'P.{i}.v'\n", layers(n, ("w", (2, 3)))),
    lambda n: (("- permute: 'P.{i}.w'\n  view: [2, -1, 2, d1]\n  axes: [0, 2, 1, 3]\n- roll: 'P.{i}.w'\n  shift: 3\n"
               "- rename: 'P.{i}.w'\n  to: 'P.{i}.v'\n"), layers(n, ("w", (8, 3)))),
    lambda n: ("- reorder: 'P.{i}.w'\n  indices: [2, 0, 1]\n- unsqueeze: 'P.{i}.w'\n  dim: 1\n",
               layers(n, ("w", (3,)))),
    lambda n: ("- reshape: 'P.{i}.w'\n  shape: [d1, d0]\n  from: [d0, d1]\n", layers(n, ("w", (2, 3)))),
    lambda n: ("- drop: 'P.{i}.zero'\n  restore: {zeros_like: 'P.{i}.v[0]'}\n- rename: 'P.{i}.w'\n  to: 'P.{i}.v'\n",
               layers(n, ("w", (2, 3)), ("zero", (3,)))),
    lambda n: ("- add: 'P.{i}.new'\n  ones_like: 'P.{i}.w'\n- tie: 'P.{i}.t'\n  to: 'P.{i}.w'\n  new: true\n",
               layers(n, ("w", (2,)))),
    lambda n: ("- pad: 'P.{i}.w'\n  to: 5\n  from: 3\n", layers(n, ("w", (3, 2)))),
    lambda n: ("", layers(n, ("untouched", (2,)))),
]  # fmt: skip


@st.composite
def migrations(draw: st.DrawFn) -> tuple[RuleFile, Names]:
    """A rules file of one to three stages, each family's rules in one of them, and names that it is for."""
    count = draw(st.integers(1, 3))
    stages = [""] * count
    shapes: dict[str, tuple[int, ...]] = {}
    for number, family in enumerate(draw(st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=6))):
        rules, own = family(draw(st.integers(1, 12)))
        prefix = f"f{number}.part" if draw(st.booleans()) else f"f{number}"
        stages[draw(st.integers(0, count - 1))] += rules.replace("P.", f"{prefix}.")
        shapes.update({f"{prefix}.{name}": shape for name, shape in own.items()})
    if draw(st.booleans()):
        stages.append("- rename: '{rest...}'\n  to: 'model.{rest...}'\n")
    text = "".join(f"- {stage.replace(chr(10), chr(10) + '  ').rstrip(' ')}" for stage in stages if stage)
    rules = load(
        f"ckpttool: 1\ngiven: {{n_layer: 12}}\nstages:\n{text}" if text else "ckpttool: 1\nrules: []", "r.yaml"
    )
    order = draw(st.permutations(list(shapes)))
    return rules, Names(tuple(Named(name, Form(INT, shapes[name])) for name in order))


def tensors_of(names: Names) -> Tensors:
    """A tensor for each name, every element another one; zeros where a rule makes zeros again."""
    found: Tensors = {}
    start = 1
    for named in names.items:
        assert named.form is not None
        size = int(np.prod(named.form.shape))
        values = np.zeros(size) if named.name.endswith(".zero") else np.arange(start, start + size)
        found[named.name] = values.astype(np.uint32).reshape(named.form.shape)
        start += size
    return found


def value(expression: Expression, tensors: Tensors) -> np.ndarray:
    if isinstance(expression, Leaf):
        return tensors[expression.name]
    inputs = [value(part, tensors) for part in expression.inputs]
    forms = tuple(Form(INT, array.shape) for array in inputs)
    arrays = [a.view(np.int32) for a in inputs] if expression.op.decodes else inputs
    result = np.ascontiguousarray(expression.op.compute(arrays, forms)[expression.part])
    return (
        result.astype(np.int32, copy=False).view(np.uint32).reshape(expression.op.forms(forms)[expression.part].shape)
    )


def applied(rewriting: Rewriting, tensors: Tensors) -> Tensors:
    return {output.name: value(output.expression, tensors) for output in rewriting.outputs}


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def run(rules: RuleFile, names: Names, tensors: Tensors) -> tuple[Names, Tensors]:
    rewriting = rewrite(rules, names)
    return names_after(rewriting, names), applied(rewriting, tensors)


@given(migrations())
def test_the_way_back_leads_back(case: tuple[RuleFile, Names]) -> None:
    rules, names = case
    tensors = tensors_of(names)
    after, moved = run(rules, names, tensors)
    back, returned = run(rules.inverse(), after, moved)
    assert unreturned(rules, rules.inverse(), names) == ()
    assert equal(returned, tensors)
    assert {named.name: named.form for named in back.items} == {named.name: named.form for named in names.items}


@given(migrations())
def test_back_and_forth_again(case: tuple[RuleFile, Names]) -> None:
    rules, names = case
    tensors = tensors_of(names)
    try:
        twice = rules.inverse().inverse()
    except RuleError:  # what undoes a tie or a pad has no way back itself
        return
    assert equal(run(twice, names, tensors)[1], run(rules, names, tensors)[1])


@given(migrations(), st.integers(0, 5))
def test_two_runs_do_what_one_does(case: tuple[RuleFile, Names], place: int) -> None:
    rules, names = case
    tensors = tensors_of(names)
    first, second = rules.cut(min(place, len(rules.stages)))
    assert first.stages + second.stages == rules.stages
    middle, halfway = run(first, names, tensors)
    end, result = run(second, middle, halfway)
    once, whole = run(rules, names, tensors)
    assert equal(result, whole)
    assert end.items == once.items


@given(migrations())
def test_printed_rules_are_the_same_rules(case: tuple[RuleFile, Names]) -> None:
    rules, names = case
    for one in (rules, rules.inverse()):
        again = load(dump(one), "r.yaml")
        assert dump(again) == dump(one)
        if one is rules:
            assert rewrite(again, names).outputs == rewrite(rules, names).outputs


@given(migrations())
def test_every_key_is_accounted_for(case: tuple[RuleFile, Names]) -> None:
    rules, names = case
    rewriting = rewrite(rules, names)
    used = {name for output in rewriting.outputs for name in output.inputs}
    dropped = {one.name for one in rewriting.dropped}
    assert used | dropped == {named.name for named in names.items}
    assert not used & dropped
    assert len({output.name for output in rewriting.outputs}) == len(rewriting.outputs)
    assert set(rewriting.untouched) == {
        o.name for o in rewriting.outputs if o.expression == Leaf(o.name) and not o.rules
    }


@given(migrations())
def test_what_does_not_repeat_changes_nothing_twice(case: tuple[RuleFile, Names]) -> None:
    rules, names = case
    rewriting = rewrite(rules, names)
    if not rewriting.repeats:
        again = rewrite(rules, names_after(rewriting, names))
        assert all(
            not isinstance(o.expression, Applied) and o.expression == Leaf(o.name)
            for o in again.outputs
            if o.name not in {t.name for t in again.ties}
        )


def test_the_laws_notice_a_broken_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law above is no tautology: a roll that is undone the wrong way round is seen."""
    from ckpttool.migration import inversion

    rules = load("ckpttool: 1\nrules: [{roll: w, shift: 1}]", "r.yaml")
    names = Names((Named("w", Form(INT, (3,))),))
    monkeypatch.setitem(inversion._UNDO, "roll", lambda rule, options: [rule])
    after, moved = run(rules, names, tensors_of(names))
    assert not equal(run(rules.inverse(), after, moved)[1], tensors_of(names))
