"""The way towards a target without contents, rules held against a target, and how names are generalised."""

from __future__ import annotations

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Form, Leaf
from ckpttool.layout import Layout
from ckpttool.migration import load, rewrite
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.inference import Inference, Move
from ckpttool.migration.target import Target, target_of
from ckpttool.migration.templates import shapes
from ckpttool.migration.towards import fitted, towards
from ckpttool.profiles import lay_out
from ckpttool.rewriting import Named, Names, Output, Rewriting
from ckpttool.testing.trees import T, checkpoint_of

Shapes = dict[str, tuple[int, ...]]


def form(shape: tuple[int, ...], dtype: str = "float32") -> Form:
    return Form(DTYPES[dtype], shape)


def names_of(shapes: Shapes) -> Names:
    return Names(tuple(Named(name, form(shape)) for name, shape in shapes.items()))


def target_with(shapes: Shapes) -> Target:
    return Target("new", tuple((name, form(shape)) for name, shape in shapes.items()))


def way(old: Shapes, new: Shapes) -> Inference:
    return towards(names_of(old), target_with(new))


def said(found: Inference) -> dict[str, tuple[str, str]]:
    return {link.new[0]: (link.old[0], link.confidence) for link in found.links}


def test_equal_names_and_forms_are_certain_and_need_no_rules() -> None:
    found = way({"a.weight": (4, 4), "b": (3,)}, {"b": (3,), "a.weight": (4, 4)})
    assert said(found) == {"b": ("b", "certain"), "a.weight": ("a.weight", "certain")}
    assert found.certain
    assert not found.rewriting.changes
    assert [one.name for one in found.rewriting.outputs] == ["b", "a.weight"]


def test_a_unique_shape_is_no_proof() -> None:
    found = way({"decoder.weight": (4, 9)}, {"readout.kernel": (4, 9)})
    assert all(link.confidence != "certain" for link in found.links)


def test_other_element_types_are_noted_and_changed_when_asked() -> None:
    names = names_of({"w": (4, 4)})
    target = Target("new", (("w", form((4, 4), "float16")),))
    (link,) = towards(names, target).links
    assert link.confidence == "likely"
    assert towards(names, target).notes == (
        "1 key: float32 here, float16 in the target: stays as it is; --cast changes it",
    )
    found = towards(names, target, cast=True)
    (output,) = rewrite(load(found.rules, "r.yaml"), names).outputs
    assert output.expression == found.rewriting.outputs[0].expression
    assert "cast" in found.rules


def test_square_matrices_beside_transposed_ones_are_asked_about() -> None:
    old = {"attn.weight": (4, 12), "proj.weight": (4, 4), "proj.bias": (4,)}
    found = way(old, {**old, "attn.weight": (12, 4)})
    assert said(found) == {"attn.weight": ("attn.weight", "likely"), "proj.bias": ("proj.bias", "certain")}
    (asked,) = found.questions
    assert (asked.new, asked.candidates) == (("proj.weight",), ("proj.weight",))
    assert asked.rules == ('- transpose: "proj.weight"',)


def test_lost_layers_are_asked_about() -> None:
    old = {f"h.{i}.weight": (4, 4) for i in range(3)} | {"head": (9,)}
    found = way(old, {"h.0.weight": (4, 4), "h.1.weight": (4, 4), "head": (9,)})
    assert said(found) == {"head": ("head", "certain")}
    (asked,) = found.questions
    assert len(asked.candidates) == 3
    assert "3 layers here, 2 in the target" in asked.why
    assert not found.complete


def test_more_layers_leave_those_that_are_there_likely() -> None:
    found = way({"h.0.weight": (4, 4)}, {"h.0.weight": (4, 4), "h.1.weight": (4, 4)})
    assert said(found) == {"h.0.weight": ("h.0.weight", "likely")}
    assert found.missing == ("h.1.weight",)


def test_one_rule_says_what_all_layers_have_in_common() -> None:
    old = {f"transformer.h.{i}.{leaf}": (4, 4 + at) for i in range(12) for at, leaf in enumerate(("a.w", "b.w"))}
    new = {name.replace("transformer.", "gpt.decoder."): shape for name, shape in old.items()}
    found = way(old, new)
    (rule,) = load(found.rules, "r.yaml").rules
    assert (rule.sources, rule.targets) == (("transformer.{rest...}",), ("gpt.decoder.{rest...}",))


def test_a_wide_rule_spares_what_keeps_its_name() -> None:
    old = {"model.a.weight": (4, 5), "model.b.weight": (6, 5), "model.keep.x": (7, 7)}
    new = {"net.a.weight": (4, 5), "net.b.weight": (6, 5), "model.keep.x": (7, 7)}
    found = way(old, new)
    made = rewrite(load(found.rules, "r.yaml"), names_of(old))
    assert {one.name: one.inputs for one in made.outputs} == {
        "net.a.weight": ("model.a.weight",),
        "net.b.weight": ("model.b.weight",),
        "model.keep.x": ("model.keep.x",),
    }


@pytest.mark.parametrize(
    ("moves", "patterns"),
    [
        ([("h.0.w", "l.0.w"), ("h.1.w", "l.1.w")], [("h.{i}.w", "l.{i}.w")]),
        ([("h.0.w", "l.1.w"), ("h.1.w", "l.2.w")], [("h.{i}.w", "l.{i+1}.w")]),
        ([("h.3.w", "l.1.w"), ("h.4.w", "l.2.w")], [("h.{i}.w", "l.{i-2}.w")]),
        ([("h.0.w", "l.1.w"), ("h.1.w", "l.0.w")], [("h.0.w", "l.1.w"), ("h.1.w", "l.0.w")]),
        ([("a.0.b.1.w", "a.0.1.w"), ("a.2.b.1.w", "a.2.1.w")], [("a.{i}.b.1.w", "a.{i}.1.w")]),
        ([("h{x}.0", "l.0"), ("h{x}.1", "l.1")], [(r"h\{x\}.0", "l.0"), (r"h\{x\}.1", "l.1")]),
    ],
)
def test_numbers_become_patterns(moves: list[tuple[str, str]], patterns: list[tuple[str, str]]) -> None:
    found = shapes([Move((old,), (new,)) for old, new in moves])
    assert [(shape.old[0], shape.new[0]) for shape in found] == patterns


def test_names_full_of_signs_are_written_as_they_are() -> None:
    old = {"a{b}*|c.weight": (4, 5), 'q"\\x': (3,)}
    new = {"x{b}*|c.weight": (4, 5), 'q"\\x': (3,)}
    found = way(old, new)
    made = rewrite(load(found.rules, "r.yaml"), names_of(old))
    assert {one.name: one.inputs[0] for one in made.outputs} == {n: o for n, (o, _) in said(found).items()}


# --- rules held against a target ---------------------------------------------------------------------------------


def test_rules_are_held_against_the_target() -> None:
    names = names_of({"a": (4,), "b": (5,), "c": (6,)})
    made = Rewriting(tuple(Output(new, Leaf(old)) for new, old in (("z", "a"), ("b", "b"), ("layer_c", "c"))))
    fit = fitted(made, names, target_with({"b": (5, 1), "layers_c": (6,), "z": (4,)}))
    assert [one.name for one in fit.rewriting.outputs] == ["b", "z", "layer_c"]
    assert fit.missing == (("layers_c", ("layer_c",)),)
    assert fit.unexpected == (("layer_c", ("layers_c",)),)
    assert fit.misshapen == (("b", "5, not 5×1"),)
    assert not fit.complete
    assert fit.problems == (
        "'b' has shape 5, not 5×1",
        "nothing makes 'layers_c'; nearest: layer_c",
        "the target has no 'layer_c'; nearest: layers_c",
    )


def test_rules_that_fit_are_complete() -> None:
    names = names_of({"a": (4,)})
    assert fitted(Rewriting((Output("b", Leaf("a")),)), names, target_with({"b": (4,)})).complete


# --- targets -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_tells_order_ties_and_buffers() -> None:
    weights = {"wte.weight": T((8, 4), tie="t"), "bn.running_mean": T((4,)), "head.weight": T((8, 4), tie="t")}
    checkpoint = checkpoint_of({"model": weights, "epoch": 3})
    target = target_of(checkpoint, lay_out(checkpoint))
    assert list(target.order) == ["wte.weight", "bn.running_mean", "head.weight"]
    assert target.parameters == ("wte.weight",)
    assert target.ties == (("wte.weight", "head.weight"),)
    assert target.buffers == ("bn.running_mean",)


def test_what_has_no_weights_is_no_target() -> None:
    with pytest.raises(MigrationError, match="has no weights"):
        target_of(checkpoint_of({"epoch": 3}), Layout())


def test_a_model_in_two_dicts_is_one_target() -> None:
    halves = {"encoder": {"weight": T((6, 4))}, "decoder": {"weight": T((3, 6)), "bias": T((3,))}}
    checkpoint = checkpoint_of({"model": halves, "epoch": 3})
    target = target_of(checkpoint, lay_out(checkpoint))
    assert list(target.order) == ["encoder.weight", "decoder.weight", "decoder.bias"]
    assert target.parameters == ("encoder.weight", "decoder.weight", "decoder.bias")
