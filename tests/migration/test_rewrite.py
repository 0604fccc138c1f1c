"""What rules make of names: the guarantees of the language, one by one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ckpttool import ops
from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Applied, Expression, Form, Leaf, form_of
from ckpttool.migration import RuleError, RuleFile, load, rewrite
from ckpttool.model import Scalar
from ckpttool.rewriting import Dropped, Named, Names, Rewriting, Tied

FLOAT = DTYPES["float32"]


def names_of(*items: str | tuple[str, tuple[int, ...]], facts: Mapping[str, Scalar] | None = None) -> Names:
    """Tensors of float32; of shape (4,) unless said."""
    pairs = [(item, (4,)) if isinstance(item, str) else item for item in items]
    return Names(tuple(Named(name, Form(FLOAT, shape)) for name, shape in pairs), facts or {})


def rules_of(text: str) -> RuleFile:
    return load("ckpttool: 1\n" + text, "rules.yaml")


def run(text: str, names: Names, **settings: int | float | str) -> Rewriting:
    """The rewriting, its forms checked on the way."""
    rewriting = rewrite(rules_of(text), names, settings)
    forms = {named.name: named.form for named in names.items if named.form is not None}
    for output in rewriting.outputs:
        if all(name in forms for name in output.inputs):
            form_of(output.expression, forms)
    return rewriting


def moved(rewriting: Rewriting) -> dict[str, str]:
    """New name to old one, of keys that keep their content."""
    return {o.name: o.expression.name for o in rewriting.outputs if isinstance(o.expression, Leaf)}


def made(rewriting: Rewriting, name: str) -> Expression:
    return next(output.expression for output in rewriting.outputs if output.name == name)


def fault(text: str, names: Names, **settings: int | float | str) -> str:
    with pytest.raises(RuleError) as caught:
        run(text, names, **settings)
    return str(caught.value)


# --- anchored ----------------------------------------------------------------------------------------------------


def test_weight_g_is_not_weight_gates() -> None:
    names = names_of("a.weight_g", "a.weight_gates", "b.my_weight_g")
    found = moved(run("rules: [{rename: '**.weight_g', to: '**.original0'}]", names))
    assert found == {"a.original0": "a.weight_g", "a.weight_gates": "a.weight_gates", "b.my_weight_g": "b.my_weight_g"}


def test_module_is_not_text_module() -> None:
    names = names_of("module.fc.weight", "text_module.fc.weight", "module_list.0")
    found = moved(run("rules: [{rename: 'module.**', to: '**'}]", names))
    assert list(found) == ["fc.weight", "text_module.fc.weight", "module_list.0"]


def test_wrappers_go_at_any_depth_until_none_is_left() -> None:
    names = names_of("module._orig_mod.a.module.b", "module_.c", "module.module")
    rewriting = run("rules: [{strip: [module, _orig_mod]}]", names)
    assert moved(rewriting) == {
        "a.b": "module._orig_mod.a.module.b",
        "module_.c": "module_.c",
        "module.module": "module.module",
    }
    assert rewriting.untouched == ("module_.c", "module.module")
    assert not rewriting.repeats


# --- staged ------------------------------------------------------------------------------------------------------

CHAIN = "rules: [{rename: 'norm0.**', to: 'norm1.**'}, {rename: 'norm1.**', to: 'norm2.**'}]"


def test_a_chain_of_renames_in_one_stage() -> None:
    assert moved(run(CHAIN, names_of("norm0.w", "norm1.w"))) == {"norm1.w": "norm0.w", "norm2.w": "norm1.w"}


def test_a_swap() -> None:
    rewriting = run(
        "rules: [{rename: 'a.{r...}', to: 'b.{r...}'}, {rename: 'b.{r...}', to: 'a.{r...}'}]", names_of("a.x", "b.x")
    )
    assert moved(rewriting) == {"b.x": "a.x", "a.x": "b.x"}
    assert rewriting.repeats


def test_a_shift_of_numbers() -> None:
    rewriting = run("rules: [{rename: 's.{i}', to: 's.{i+1}'}]", names_of("s.0", "s.1", "s.2"))
    assert moved(rewriting) == {"s.1": "s.0", "s.2": "s.1", "s.3": "s.2"}
    assert rewriting.repeats


def test_stages_follow_each_other_in_one_rewriting() -> None:
    text = "stages: [[{split: qkv, into: [q, k, v]}], [{transpose: q}, {drop: v}], [{concat: [k, q], into: kq}]]"
    rewriting = run(text, names_of(("qkv", (6, 2))))
    part = [Applied(ops.Split(sections=3), (Leaf("qkv"),), i) for i in range(3)]
    assert made(rewriting, "kq") == Applied(ops.Concat(), (part[1], Applied(ops.Transpose(), (part[0],))))
    assert rewriting.outputs[0].rules == (0, 3, 1)
    assert rewriting.dropped == ()
    assert rewriting.notes == ("rules.yaml:2 – drop 'v': a part of 'qkv' is dropped with it",)


def test_the_first_rule_that_matches_decides() -> None:
    rewriting = run("rules: [{drop: 'a.x'}, {rename: 'a.{name}', to: 'b.{name}'}]", names_of("a.x", "a.y"))
    assert moved(rewriting) == {"b.y": "a.y"}
    assert rewriting.dropped == (Dropped("a.x", (0,)),)


def test_a_drop_behind_a_wider_rename_is_never_reached() -> None:
    rewriting = run("rules:\n- rename: 'a.{name}'\n  to: 'b.{name}'\n- drop: 'a.x'\n", names_of("a.x", "a.y"))
    assert rewriting.dropped == ()
    assert rewriting.notes == (
        (
            "rules.yaml:5 – drop 'a.x': is never reached: rules.yaml:3, rename 'a.{name}' to 'b.{name}', decides 'a.x'"
            " first; put the narrower rule before the wider one"
        ),
    )


def test_contents_add_up_in_order_whatever_the_name_rule_does() -> None:
    text = "rules: [{rename: a, to: b}, {transpose: a}, {reshape: a, shape: [6]}]"
    rewriting = run(text, names_of(("a", (2, 3))))
    assert made(rewriting, "b") == Applied(ops.Reshape((6,)), (Applied(ops.Transpose(), (Leaf("a"),)),))
    assert rewriting.outputs[0].rules == (1, 2, 0)


def test_two_sources_for_one_name() -> None:
    text = "rules:\n- rename: a\n  to: c\n- rename: b\n  to: c\n"
    assert fault(text, names_of("a", "b")) == (
        "rules.yaml:5 – rename 'b' to 'c': two sources for 'c': 'b' by this rule,"
        " and 'a' by rules.yaml:3, rename 'a' to 'c'"
    )
    assert fault(text, names_of("c", "a")) == (
        "rules.yaml:3 – rename 'a' to 'c': two sources for 'c': 'a' by this rule, and 'c' as it is;"
        " drop one of them, or guard the rule with when: {missing: …}"
    )


def test_order_and_what_no_rule_spoke_of() -> None:
    text = "rules: [{split: b, into: [b1, b2]}, {concat: [e, d], into: de}, {add: b3, zeros_like: b}, {drop: f}]"
    rewriting = run(text, names_of("a", "b", "c", "d", "e", "f", "g"))
    assert [output.name for output in rewriting.outputs] == ["a", "b1", "b2", "c", "de", "g", "b3"]
    assert rewriting.untouched == ("a", "c", "g")


def test_a_new_key_stands_with_its_module() -> None:
    rewriting = run(
        "rules: [{add: head.bias, zeros_like: 'head.weight[:, 0]'}]", names_of(("head.weight", (5, 2)), "z")
    )
    assert [output.name for output in rewriting.outputs] == ["head.weight", "head.bias", "z"]
    assert made(rewriting, "head.bias") == Applied(ops.Fill((5,), FLOAT, 0), ())


# --- groups ------------------------------------------------------------------------------------------------------

FUSE = "rules:\n- concat: ['l.{i}.q', 'l.{i}.k', 'l.{i}.v']\n  into: 'l.{i}.qkv'\n"


def test_a_member_that_is_missing_is_named() -> None:
    assert fault(FUSE, names_of("l.0.q", "l.0.k", "l.0.v", "l.1.q", "l.1.key", "l.1.v")) == (
        "rules.yaml:3 – concat 'l.{i}.q', 'l.{i}.k', 'l.{i}.v' to 'l.{i}.qkv': 'l.1.{q,v}' are there and 'l.1.k' is"
        " missing; nearest: 'l.0.k', 'l.1.key'"
    )


def test_a_member_that_another_rule_takes_is_named() -> None:
    text = "rules:\n- drop: l.0.k\n" + FUSE.removeprefix("rules:\n")
    assert "'l.0.k' cannot be joined with them: rules.yaml:3 decides it" in fault(
        text, names_of("l.0.q", "l.0.k", "l.0.v")
    )


def test_experts_are_gathered_in_the_order_of_their_numbers() -> None:
    names = names_of(*[(f"m.experts.{e}.{w}", (2, 3)) for e in (10, *range(10)) for w in ("w1", "w3")])
    rewriting = run("rules: [{stack: 'm.experts.{e}.{w1|w3}', into: 'm.{gate|up}'}]", names)
    expression = made(rewriting, "m.up")
    assert isinstance(expression, Applied)
    assert expression.inputs == tuple(Leaf(f"m.experts.{e}.w3") for e in range(11))


def test_a_gap_in_what_is_gathered() -> None:
    assert "'e.{0,2}' are there and 'e.1' is missing" in fault(
        "rules: [{stack: 'e.{i}', into: e}]", names_of("e.0", "e.2")
    )


def test_sources_that_gather_different_things() -> None:
    rewriting = run("rules: [{concat: ['a.{i}', 'b.{name}'], into: c}]", names_of("a.0", "a.1", "b.x"))
    assert rewriting.outputs[0].inputs == ("a.0", "a.1", "b.x")
    said = fault("rules: [{concat: ['a.{i}', 'b.{i}'], into: c}]", names_of("a.0", "b.0", "b.1"))
    assert "'a.0', 'b.{0,1}' are there and 'a.1' is missing" in said


def test_one_tensor_becomes_counted_ones() -> None:
    rewriting = run("rules: [{unstack: w, into: 'e.{i+1}.w'}]", names_of(("w", (3, 2))))
    assert [output.name for output in rewriting.outputs] == ["e.1.w", "e.2.w", "e.3.w"]
    assert made(rewriting, "e.3.w") == Applied(ops.Unstack(), (Leaf("w"),), 2)


def test_parts_of_different_sizes_are_stated() -> None:
    names = names_of(("q", (8, 2)), ("k", (2, 2)))
    assert "the parts differ along dimension 0: 8, 2; say sizes: [8, 2]" in fault(
        "rules: [{concat: [q, k], into: qk}]", names
    )
    assert run("rules: [{concat: [q, k], into: qk, sizes: [8, 2]}]", names).outputs
    assert "'sizes' says 4, 6" in fault("rules: [{concat: [q, k], into: qk, sizes: [4, 6]}]", names)


# --- extras ------------------------------------------------------------------------------------------------------


def test_a_factor_may_be_a_size_of_the_tensor() -> None:
    """The scale of an adapter is alpha / rank, and its rank is a size of it."""
    found = run("rules:\n- scale: '{m...}.up'\n  by: 6 / d1", names_of(("a.up", (8, 2)), ("b.up", (8, 3))))
    assert [made(found, name).op.factor for name in ("a.up", "b.up")] == [3.0, 2.0]  # type: ignore[union-attr]


def test_a_tie_follows_the_key_that_it_leads_to() -> None:
    text = "stages: [[{tie: head, to: wte}, {rename: wte, to: emb}], [{rename: emb, to: embed}]]"
    rewriting = run(text, names_of("wte", "x"))
    assert (rewriting.ties[0].name, rewriting.ties[0].to) == ("head", "embed")
    assert moved(rewriting) == {"embed": "wte", "x": "x", "head": "wte"}


def test_a_tie_in_the_place_of_a_key_says_so() -> None:
    rewriting = run("rules: [{tie: head, to: wte}]", names_of("wte", "head"))
    assert rewriting.ties == (Tied("head", "wte", (0,), "head"),)
    assert rewriting.dropped == ()


def test_a_slice_uses_a_source_again() -> None:
    text = "rules: [{slice: pos, into: cls, dim: 0, stop: 1}, {slice: pos, dim: 0, start: 1}, {rename: pos, to: p}]"
    rewriting = run(text, names_of(("pos", (5, 2))))
    assert made(rewriting, "cls") == Applied(ops.Slice(0, None, 1), (Leaf("pos"),))
    assert made(rewriting, "p") == Applied(ops.Slice(0, 1, None), (Leaf("pos"),))


def test_what_is_there_is_not_added() -> None:
    text = "rules: [{add: '{m...}.n', for: '{m...}.mean', full: 0, shape: [], dtype: int64}]"
    rewriting = run(text, names_of("bn1.mean", "bn1.n", "bn2.mean"))
    assert [output.name for output in rewriting.outputs] == ["bn1.mean", "bn1.n", "bn2.mean", "bn2.n"]
    assert made(rewriting, "bn2.n") == Applied(ops.Fill((), DTYPES["int64"], 0), ())
    assert rewriting.notes == ("rules.yaml:2 – add '{m...}.n': 'bn1.n' is there already",)
    assert not rewriting.repeats


# --- guards ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guard", "fires"),
    [
        ("{exists: 'l.{i}.marker'}", True),
        ("{missing: 'l.{i}.marker'}", False),
        ("{exists: '**.marker'}", True),
        ("{exists: ['l.{i}.marker', nothing]}", False),
        ("{shape: [4]}", True),
        ("{shape: ['*', 4]}", False),
        ("{shape: [n_rows]}", True),
        ("{dtype: float32}", True),
        ("{dtype: [float16, bfloat16]}", False),
        ("{metadata: {meta.version: '<2.10'}}", True),
        ("{metadata: {meta.version: '>=2.10'}}", False),
        ("{metadata: {meta.version: 2.9.1}}", True),
        ("{metadata: {epoch: 3}}", True),
        ("{metadata: {epoch: '!=3'}}", False),
        ("{metadata: {nothing: null}}", True),
        ("{metadata: {nothing: '<2'}}", False),
        ("{version: {'l.{i}': '<2'}}", True),
        ("{version: {'l.{i}': '>=2'}}", False),
        ("{version: {'other': '<2'}}", True),
    ],
)
def test_guards(guard: str, fires: bool) -> None:
    names = Names(
        (Named("l.0.w", Form(FLOAT, (4,))), Named("l.0.marker", None)),
        {"meta.version": "2.9.1", "epoch": 3},
        {"l.0": 1},
    )
    text = f"given: {{n_rows: 4}}\nrules: [{{rename: 'l.{{i}}.w', to: 'm.{{i}}.w', when: {guard}}}]"
    rewriting = run(text, names)
    assert ("m.0.w" in moved(rewriting)) == fires


def test_a_guard_that_never_holds_is_noted() -> None:
    text = "rules: [{rename: a, to: b, when: {exists: c}}, {rename: x, to: y}]"
    assert run(text, names_of("a", "x")).notes == (
        "rules.yaml:2 – rename 'a' to 'b': its guard does not hold for any of 'a'",
    )


# --- given values ------------------------------------------------------------------------------------------------


def test_given_values_come_from_the_user_then_the_checkpoint_then_the_file() -> None:
    text = "given: {heads: {from: [args.heads, heads], default: 2}}\nrules: [{rename: 'a.{heads}', to: b}]"
    names = [f"a.{i}" for i in (2, 3, 4)]
    assert moved(run(text, names_of(*names)))["b"] == "a.2"
    assert moved(run(text, names_of(*names, facts={"heads": 3})))["b"] == "a.3"
    assert moved(run(text, names_of(*names, facts={"heads": 3}), heads="4"))["b"] == "a.4"


def test_a_value_that_is_needed() -> None:
    text = "given: {heads: {from: args.heads, about: attention heads}}\nrules: []"
    assert fault(text, names_of("a")) == (
        "rules.yaml – 'heads' (attention heads) has no value; the checkpoint does not record it as args.heads:"
        " say it with --set heads=VALUE"
    )
    assert fault("given: {n_layer: 2}\nrules: []", names_of("a"), n_layers=3) == (
        "rules.yaml – 'n_layers' is not a given name of these rules; did you mean 'n_layer'?"
    )


# --- counted, and safe to repeat ---------------------------------------------------------------------------------


def test_rules_are_counted_and_idle_ones_noted() -> None:
    text = "rules:\n- rename: 'h.{i}.w'\n  to: 'g.{i}.w'\n- drop: 'h.{i}.attn.bias'\n- drop: 'zzz'\n  optional: true\n"
    rewriting = run(text, names_of("h.0.w", "h.1.w", "h.0.attn.bias_k"))
    assert [use.hits for use in rewriting.rules] == [2, 0, 0]
    assert [use.where for use in rewriting.rules] == ["rules.yaml:3", "rules.yaml:5", "rules.yaml:6"]
    assert rewriting.notes == ("rules.yaml:5 – drop 'h.{i}.attn.bias': no key matches; nearest: 'h.0.attn.bias_k'",)


def test_a_letter_is_digits() -> None:
    text = "rules: [{rename: 'a.{n}', to: 'b.{n}'}, {rename: c, to: d}]"
    notes = run(text, names_of("a.x", "c")).notes
    assert notes == (
        (
            "rules.yaml:2 – rename 'a.{n}' to 'b.{n}': no key matches; a name of one letter stands for digits,"
            " a longer one for any segment"
        ),
    )


def test_already_migrated() -> None:
    text = "rules: [{rename: 'a.{r...}', to: 'b.{r...}'}]"
    again = run(text, names_of("b.x"))
    assert again.already
    assert not again.changes
    assert "already migrated" in again.notes[0]
    other = run(text, names_of("c.x"))
    assert not other.already
    assert "no rule matches any key" in other.notes[0]


def test_a_cast_to_the_type_that_is_there_is_none() -> None:
    assert not run("rules: [{cast: '**', dtype: float32}]", names_of("a")).changes
    assert not run("rules: [{cast: '**', dtype: bfloat16}]", names_of("a")).repeats


def test_a_cast_leaves_integers_alone() -> None:
    names = Names((Named("w", Form(FLOAT, (2,))), Named("n", Form(DTYPES["int64"], ()))))
    rewriting = run("rules: [{cast: '**', dtype: float16}]", names)
    assert moved(rewriting) == {"n": "n"}
    assert rewriting.untouched == ("n",)


def test_square_transposes_repeat() -> None:
    assert run("rules: [{transpose: w}]", names_of(("w", (2, 2)))).repeats


# --- what does not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{transpose: t}", "'t': transpose without 'dims' takes 2 dimensions, this tensor has 1"),
        ("{split: t, into: [a, b, c]}", "'t': split"),
        ("{reshape: t, shape: [3]}", "'t': reshape"),
        ("{transpose: x}", "the rule changes tensors and this key holds none (key 'x')"),
        ("{rename: 's.{i}', to: 's.{i-1}'}", "{i-1} comes to -1 (key 's.0')"),
        ("{roll: t, shift: 1//0}", "division by 0"),
        ("{reshape: t, shape: [4, 1], from: [5]}", "'from' says (5), the tensor is (4)"),
        ("{cast: t, dtype: float64, from: float16}", "'from' says float16, the tensor is float32"),
        ("{pad: t, to: 8, from: 5}", "'from' says 5 along dimension 0, the tensor has 4"),
        ("{permute: t, view: [2, d7], axes: [1, 0]}", "'d7' has no value here"),
        ("{add: n, zeros_like: 't[0, 0]'}", "the index [0, 0] has 2 places; the tensor has 1 dimension"),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_rule_and_key(rule: str, said: str) -> None:
    names = Names((*names_of("t", "s.0").items, Named("x", None)))
    assert said in fault(f"rules: [{rule}]", names)


def test_what_is_no_tensor_can_be_renamed() -> None:
    assert moved(run("rules: [{rename: x, to: y, in: tree}]", Names((Named("x", None),)))) == {"y": "x"}


def test_no_names_no_result() -> None:
    assert run("rules: [{rename: a, to: b}]", Names(())).outputs == ()
