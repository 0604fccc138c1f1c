"""The way back: what is undone, and what says why it is not."""

from __future__ import annotations

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Form
from ckpttool.migration import RuleError, RuleFile, load, unreturned
from ckpttool.rewriting import Named, Names


def rules_of(text: str) -> RuleFile:
    return load("ckpttool: 1\n" + text, "rules.yaml")


def undone(rule: str) -> str:
    """The rules that undo one, as they are printed."""
    text = rules_of(f"given: {{n_heads: 4}}\nrules:\n- {rule}").inverse().text
    return text.partition("rules:\n")[2].rstrip("\n")


@pytest.mark.parametrize(
    ("rule", "back"),
    [
        ("{rename: 's.{i}.a', to: 's.{i+1}.b'}", '- rename: "s.{i+1}.b"\n  to: "s.{i}.a"'),
        ("{rename: 'b.{i}', to: 'b.{i//4}.{i%4}'}", '- rename: "b.{i//4}.{i%4}"\n  to: "b.{i}"'),
        ("{rename: {regex: 'a(.)'}, to: 'b\\1', reverse: {regex: 'b(.)', to: 'a\\1'}}",
         '- rename: {regex: "b(.)"}\n  to: \'a\\1\'\n  reverse: {regex: "a(.)", to: \'b\\1\'}'),
        ("{split: a, into: [b, c], sizes: [1, -1], dim: 1}",
         "- concat: [b, c]\n  into: a\n  sizes: [1, -1]\n  dim: 1"),
        ("{concat: [b, c], into: a}", "- split: a\n  into: [b, c]"),
        ("{stack: 'e.{i}', into: e}", '- unstack: e\n  into: "e.{i}"'),
        ("{unstack: e, into: [a, b], dim: 1}", "- stack: [a, b]\n  into: e\n  dim: 1"),
        ("{drop: 'h.{i}.b', restore: {zeros_like: 'h.{i}.w[0]'}}",
         '- add: "h.{i}.b"\n  zeros_like: "h.{i}.w[0]"'),
        ("{add: 'h.{i}.b', zeros_like: 'h.{i}.w[0]'}",
         '- drop: "h.{i}.b"\n  restore: {zeros_like: "h.{i}.w[0]"}\n  optional: true'),
        ("{strip: [a, module], wrap: module}", '- rename: "{rest...}"\n  to: "module.{rest...}"'),
        ("{tie: a, to: b, new: true}", "- drop: a"),
        ("{slice: a, into: b, stop: 1}", "- drop: b"),
        ("{transpose: a, dims: [0, 2]}", "- transpose: a\n  dims: [0, 2]"),
        ("{permute: a, axes: [2, 0, 1]}", "- permute: a\n  axes: [1, 2, 0]"),
        ("{permute: a, axes: [-1, 0, 1]}", "- permute: a\n  axes: [1, 2, 0]"),
        ("{permute: a, view: [n_heads, 3, -1, d1], axes: [1, 0, 2, 3]}",
         "- permute: a\n  view: [3, n_heads, -1, d1]\n  axes: [1, 0, 2, 3]"),
        ("{reshape: a, shape: [d0, d1], from: [d0, d1, 1, 1]}",
         "- reshape: a\n  shape: [d0, d1, 1, 1]\n  from: [d0, d1]"),
        ("{reshape: a, shape: [d1, d0], from: [d0, d1]}", "- reshape: a\n  shape: [d1, d0]\n  from: [d0, d1]"),
        ("{squeeze: a, dim: 1}", "- unsqueeze: a\n  dim: 1"),
        ("{roll: a, shift: -1}", "- roll: a\n  shift: 1"),
        ("{roll: a, shift: d0//2}", '- roll: a\n  shift: "0-d0//2"'),
        ("{reorder: a, indices: [2, 0, 1]}", "- reorder: a\n  indices: [1, 2, 0]"),
        ("{cast: a, dtype: float32, from: bfloat16}", "- cast: a\n  dtype: bfloat16"),
        ("{pad: a, to: 50304, from: 50257}", "- slice: a\n  dim: 0\n  stop: 50257"),
        ("{rename: a, to: b, when: {metadata: {v: 1}}}", "- rename: b\n  to: a\n  when: {metadata: {v: 1}}"),
        ("{rename: a, to: b, when: {exists: c}, reverse_when: {missing: c}}",
         "- rename: b\n  to: a\n  when: {missing: c}\n  reverse_when: {exists: c}"),
        ("{rename: a, to: b, when: {exists: c}, reverse_when: always}",
         "- rename: b\n  to: a\n  reverse_when: {exists: c}"),
        ("{roll: a, shift: 1, when: {exists: c, shape: [3]}}",
         "- roll: a\n  shift: -1\n  when: {exists: c, shape: [3]}"),
    ],
)  # fmt: skip
def test_what_is_undone(rule: str, back: str) -> None:
    assert undone(rule) == back


@pytest.mark.parametrize("rule", ["{drop: a, restore: nothing}", "{tie: a, to: b, new: false}"])
def test_where_nothing_is_to_undo(rule: str) -> None:
    assert undone(rule) == ""
    assert rules_of(f"rules:\n- {rule}").inverse().stages == ()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("{rename: 'a.{i}.{j}', to: 'b.{i}'}", "{j} in 'a.{i}.{j}' is not in 'b.{i}'"),
        ("{rename: 'a.{i}', to: 'b.{i//2}'}", "'{i//2}' does not tell what i is"),
        ("{rename: '{a|b}', to: c}", "'{a|b}' in '{a|b}' has no counterpart in 'c'"),
        ("{rename: {regex: a}, to: b}", "say reverse: {regex: …, to: …}"),
        ("{drop: a}", "say what to restore, or restore: nothing"),
        ("{strip: module}", "say wrap, as in wrap: module"),
        ("{split: a, into: [b, c], sizes: [d0//3, -1]}", "'d0//3' is a size of the old tensor"),
        ("{concat: [a, b], into: c, sizes: any}", "give sizes"),
        ("{concat: 'e.{i}', into: e}", ""),
        ("{tie: a, to: b}", "new: true, or new: false"),
        ("{slice: a, start: 1}", "rows outside of the slice are not kept"),
        ("{reshape: a, shape: [1]}", "say from, as in from: [64, 1, 1]"),
        ("{reshape: a, shape: [-1], from: [d0, 1]}", "cannot be told"),
        ("{cast: a, dtype: bfloat16}", "may have been wider"),
        ("{cast: a, dtype: bfloat16, from: float32}", "bfloat16 does not hold every float32: numbers are rounded"),
        ("{cast: a, dtype: float16, from: bfloat16}", "float16 does not hold every bfloat16"),
        ("{scale: a, by: 2}", "products are rounded"),
        ("{fold: [a, b], into: c, by: multiply}", "what was folded cannot be told apart"),
        ("{interpolate: a, size: [2, 2]}", "pixels are resampled"),
        ("{pad: a, to: 4}", "say from"),
        ("{rename: a, to: b, when: {exists: c}}", "its guard speaks of the old names"),
        ("{rename: a, to: b, when: {version: {c: 1}}}", "recorded versions are found by names"),
        ("{transpose: a, when: {shape: [2, 3]}}", "its guard speaks of a content that the rules change"),
    ],
)
def test_what_is_not_undone_says_why(rule: str, why: str) -> None:
    rules = rules_of(f"rules:\n- {rule}")
    if not why:
        assert rules.inverse().stages
        return
    with pytest.raises(RuleError) as caught:
        rules.inverse()
    assert str(caught.value).startswith(f"rules.yaml:3 – the rules cannot be reversed – {rules.rules[0].where}, ")
    assert why in str(caught.value)


def test_every_rule_that_is_not_undone_is_named() -> None:
    with pytest.raises(RuleError) as caught:
        rules_of("rules:\n- drop: a\n- rename: b\n  to: c\n- scale: d\n  by: 2\n").inverse()
    assert str(caught.value) == (
        "rules.yaml:3 – the rules cannot be reversed – rules.yaml:3, drop 'a': what it drops is not kept: say what to"
        " restore, or restore: nothing; rules.yaml:6, scale 'd': products are rounded"
    )


def test_stages_turn_round_and_names_come_back_before_contents() -> None:
    rules = rules_of(
        "from: '1'\nto: '2'\nabout: x\nstages: [[{transpose: a}, {rename: a, to: b}], [{rename: b, to: c}]]"
    )
    back = rules.inverse()
    assert [[rule.text for rule in stage.rules] for stage in back.stages] == [
        ["rename 'c' to 'b'"], ["rename 'b' to 'a'"], ["transpose 'a'"],
    ]  # fmt: skip
    assert (back.from_, back.to, back.about) == ("2", "1", "reverse of: x")
    assert load(back.text, "rules.yaml").stages != ()
    assert back.inverse().about == "x"


def names_of(*names: str) -> Names:
    return Names(tuple(Named(name, Form(DTYPES["float32"], (2,))) for name in names))


@pytest.mark.parametrize(
    ("rules", "names", "lost"),
    [
        ("[{rename: a, to: b}]", ["a", "c"], ()),
        ("[{rename: a, to: b}]", ["b"], ("b", "a")),
        ("[{drop: a, restore: {zeros_like: b}}]", ["a", "b"], ()),
        ("[{drop: a, restore: nothing}]", ["a", "b"], ("a",)),
        ("[{rename: 'x.{name}', to: 'y.{name}'}, {rename: 'z.k', to: 'y.z'}]", ["x.a", "z.k"], ("z.k", "x.z")),
    ],
)
def test_what_does_not_come_back_is_listed(rules: str, names: list[str], lost: tuple[str, ...]) -> None:
    """The last one: both inverses match ``y.z``, and the first of them decides."""
    there = rules_of(f"rules: {rules}")
    assert unreturned(there, there.inverse(), names_of(*names)) == lost
