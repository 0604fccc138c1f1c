"""Plans for whole checkpoints, from rewritings written by hand: what moves with the weights, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.editing import Editor
from ckpttool.expressions import Applied, Leaf
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.reach import Wishes
from ckpttool.ops import Cast, Fill, MatMul, Split, Transpose
from ckpttool.rewriting import Output, Tied
from ckpttool.testing.plans import adam, keys, made_of, merged, planned, split, tensors, turned, values
from ckpttool.testing.trees import T, checkpoint_of

FLOAT = DTYPES["float32"]


WEIGHTS = {"embed.weight": T((5, 4)), "fc.weight": T((6, 4)), "fc.bias": T((6,)), "head.weight": T((3, 6))}


def training(**more: Any) -> dict[str, Any]:
    return {"model": dict(WEIGHTS), "optimizer": adam([t.shape for t in WEIGHTS.values()]), "epoch": 3, **more}


# --- weights -------------------------------------------------------------------------------------------------


def test_a_renamed_key_stays_at_its_place_and_all_else_as_it_was() -> None:
    before = checkpoint_of(training(note={"x": [1, 2]}))
    found = planned(before, {"fc.weight": "mlp.weight", "fc.bias": "mlp.bias"})
    assert keys(found)[:4] == ["model.embed.weight", "model.mlp.weight", "model.mlp.bias", "model.head.weight"]
    assert keys(found)[4:] == [e.key for e in before.entries()][4:]
    assert found.draft.checkpoint.storages == before.storages
    assert found.changed == ()
    assert [(s.op, s.old, s.new) for s in found.steps] == [
        ("rename", ("model.fc.weight",), ("model.mlp.weight",)),
        ("rename", ("model.fc.bias",), ("model.mlp.bias",)),
    ]
    assert found.lossless


def test_nothing_to_do_changes_nothing() -> None:
    before = checkpoint_of(training())
    found = planned(before, {})
    assert (found.steps, found.draft) == ((), Editor(before).finish())


def test_split_outputs_stand_where_the_source_was_with_state_of_their_own() -> None:
    found = planned(training(), {"fc.weight": split("fc.weight", ["a.weight", "b.weight"])})
    assert [k for k in keys(found) if k.startswith("model")] == [
        "model.embed.weight", "model.a.weight", "model.b.weight", "model.fc.bias", "model.head.weight",
    ]  # fmt: skip
    known = tensors(found)
    assert known["model.a.weight"].shape == known["optimizer.state.1.exp_avg"].shape == (3, 4)
    assert made_of(found, "optimizer.state.2.exp_avg_sq") == Applied(Split(sections=2), (Leaf("fc.weight"),), 1)
    assert known["optimizer.state.1.step"].storage != known["optimizer.state.2.step"].storage
    assert [values(found)[f"optimizer.param_groups.0.params.{i}"] for i in range(5)] == [0, 1, 2, 3, 4]
    assert known["optimizer.state.4.exp_avg"].shape == (3, 6)


def test_merged_parameters_take_the_first_ones_place() -> None:
    weights = {"q": T((2, 4)), "x": T((7,)), "k": T((3, 4)), "last": T((1,))}
    value = {"model": weights, "optimizer": adam([t.shape for t in weights.values()])}
    for group in value["optimizer"]["state"].values():
        group["step"] = 5
    found = planned(value, {"q": [merged("qk", ["q", "k"])], "k": []})
    known = tensors(found)
    assert [k for k in keys(found) if k.startswith("model")] == ["model.qk", "model.x", "model.last"]
    assert known["optimizer.state.0.exp_avg"].shape == (5, 4)
    assert known["optimizer.state.1.exp_avg"].shape == (7,)
    assert known["optimizer.state.2.exp_avg"].shape == (1,)
    assert values(found)["optimizer.state.0.step"] == 5


def test_merged_parameters_of_unlike_steps_are_refused_with_both_numbers() -> None:
    weights = {"q": T((2, 4)), "k": T((3, 4))}
    value = {"model": weights, "optimizer": adam([t.shape for t in weights.values()])}
    for i, group in value["optimizer"]["state"].items():
        group["step"] = 5 + i
    with pytest.raises(MigrationError, match=r"'step' differs: 5 and 6"):
        planned(value, {"q": [merged("qk", ["q", "k"])], "k": []})


def test_parameters_of_two_groups_are_not_merged() -> None:
    weights = {"q": T((2, 4)), "k": T((3, 4))}
    value = {"model": weights, "optimizer": adam([t.shape for t in weights.values()], [[0], [1]])}
    with pytest.raises(MigrationError, match="groups 0 and 1"):
        planned(value, {"q": [merged("qk", ["q", "k"])], "k": []})


def test_ties_stay_ties_where_both_are_changed_alike() -> None:
    weights = {"embed": T((5, 4), tie="e"), "head": T((5, 4), tie="e")}
    turned = {name: [Output(name, Applied(Transpose(), (Leaf(name),)))] for name in weights}
    found = planned({"model": weights}, turned)
    known = tensors(found)
    assert known["model.embed"].storage == known["model.head"].storage
    assert known["model.embed"].shape == (4, 5)
    assert len(found.draft.checkpoint.storages) == 1
    assert found.lossless
    one = planned({"model": weights}, {"head": turned["head"]})
    assert tensors(one)["model.embed"].storage != tensors(one)["model.head"].storage
    assert [step.lossy for step in one.steps if step.op == "untie"] == ["that they were one tensor"]


def test_a_source_used_twice_is_copied_unless_a_tie_is_asked_for() -> None:
    twice = {"fc.weight": [Output("a", Leaf("fc.weight")), Output("b", Leaf("fc.weight"))]}
    known = tensors(planned(training(), twice))
    assert known["model.a"].storage != known["model.b"].storage
    assert known["optimizer.state.1.exp_avg"].storage != known["optimizer.state.2.exp_avg"].storage
    tied = planned(training(), twice, ties=[Tied("b", "a")])
    known = tensors(tied)
    assert known["model.a"].storage == known["model.b"].storage
    assert keys(tied)[1:3] == ["model.a", "model.b"]
    assert "optimizer.state.4.exp_avg" not in known


def test_added_and_dropped_parameters() -> None:
    new = Output("fresh.bias", Applied(Fill((7,), FLOAT, 0), ()))
    changes = {"fc.bias": [Output("fc.bias", Leaf("fc.bias")), new]}
    found = planned(training(), changes, drop=["embed.weight"])
    assert values(found)["optimizer.param_groups.0.params.3"] == 3
    known = tensors(found)
    assert known["model.fresh.bias"].shape == (7,)
    assert known["optimizer.state.1.exp_avg"].shape == (6,)
    assert "optimizer.state.2.exp_avg" not in known
    assert known["optimizer.state.3.exp_avg"].shape == (3, 6)
    lossy = [step for step in found.steps if step.lossy]
    assert {key for step in lossy for key in step.old} == {
        "model.embed.weight", "optimizer.state.0.step", "optimizer.state.0.exp_avg", "optimizer.state.0.exp_avg_sq",
    }  # fmt: skip
    assert any("goes into the only group" in step.reason for step in found.steps)


def test_values_that_are_mixed_leave_their_moments_behind_and_say_so() -> None:
    weights = {"a": T((4, 4)), "b": T((4, 2))}
    value = {"model": weights, "optimizer": adam([t.shape for t in weights.values()])}
    found = planned(value, {"a": [Output("c", Applied(MatMul(), (Leaf("a"), Leaf("b"))))], "b": []})
    assert "optimizer.state.0.exp_avg" not in tensors(found)
    assert any("starts anew" in step.lossy for step in found.steps)
    assert any("cannot be had back" in step.lossy for step in found.steps)


# --- nested ones, prefixes, _metadata --------------------------------------------------------------------------


def test_nested_containers_are_used_and_follow() -> None:
    value = {"model": {"encoder": {"a": T(), "b": T()}, "decoder": {"c": T((2,))}}, "epoch": 1}
    found = planned(value, {"encoder.a": "enc.a", "encoder.b": "enc.b", "decoder.c": "decoder.d.e"})
    assert [entry.path for entry in found.draft.checkpoint.entries()] == [
        ("model", "enc", "a"), ("model", "enc", "b"), ("model", "decoder", "d.e"), ("epoch",),
    ]  # fmt: skip


def test_state_of_a_model_in_two_dicts_follows_there_and_back() -> None:
    halves = {"encoder": {"a": T((6, 4)), "b": T((6,))}, "decoder": {"c": T((3, 6)), "d": T((3,))}}
    before = checkpoint_of({"model": halves, "optimizer": adam([(6, 4), (6,), (3, 6), (3,)])})
    there = planned(before, {"encoder.a": "enc.a", "encoder.b": "enc.b", **turned("decoder.c")})
    assert tensors(there)["optimizer.state.2.exp_avg"].shape == (6, 3)
    back = planned(there.draft.checkpoint, {"enc.a": "encoder.a", "enc.b": "encoder.b", **turned("decoder.c")})
    assert tensors(back)["optimizer.state.2.exp_avg"].shape == (3, 6)
    assert keys(back) == [entry.key for entry in before.entries()]


def test_an_average_under_a_prefix_moves_along_and_its_count_stays() -> None:
    ema = {"n_averaged": T((), "int64"), **{f"module.{k}": t for k, t in WEIGHTS.items()}}
    found = planned(training(ema=ema), {"fc.weight": split("fc.weight", ["a", "b"])})
    assert [k for k in keys(found) if k.startswith("ema")] == [
        "ema.n_averaged", "ema.module.embed.weight", "ema.module.a", "ema.module.b", "ema.module.fc.bias",
        "ema.module.head.weight",
    ]  # fmt: skip
    assert tensors(found)["ema.module.a"].shape == (3, 4)


def test_metadata_follows_modules() -> None:
    modules = {"": 1, "h": 1, "h.0": 1, "h.0.norm": 2, "h.0.act": 1}
    weights = {"h.0.norm.weight": T((3,)), "_metadata": {m: {"version": v} for m, v in modules.items()}}
    found = planned({"model": weights}, {"h.0.norm.weight": "layers.0.ln.weight"})
    node = found.draft.checkpoint
    from ckpttool.migration.scopes import metadata_at
    from ckpttool.tree import fields, lookup, plain

    at = metadata_at(node, lookup(node, node.root, "model") or 0)
    versions = {name: plain(node, fields(node, i)["version"]) for name, i in fields(node, at).items()}
    assert versions == {"": 1, "layers": 1, "layers.0": 1, "layers.0.ln": 2, "layers.0.act": 1}
    assert list(versions) == ["", "layers", "layers.0", "layers.0.ln", "layers.0.act"]


# --- optimizers ---------------------------------------------------------------------------------------------


def test_states_keyed_by_names_are_renamed() -> None:
    state = {name: {"step": T(()), "exp_avg": T(t.shape)} for name, t in WEIGHTS.items()}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": list(WEIGHTS)}]}
    found = planned({"model": WEIGHTS, "optimizer": optimizer}, {"fc.bias": "mlp.bias"})
    assert "optimizer.state.mlp.bias.exp_avg" in keys(found)
    assert "optimizer.state.fc.bias.exp_avg" not in keys(found)
    assert values(found)["optimizer.param_groups.0.params.2"] == "mlp.bias"


def test_recorded_names_are_renamed_and_ids_stay() -> None:
    optimizer = adam([t.shape for t in WEIGHTS.values()], param_names=list(WEIGHTS))
    found = planned({"model": WEIGHTS, "optimizer": optimizer}, {"fc.bias": "mlp.bias"})
    assert values(found)["optimizer.param_groups.0.param_names.2"] == "mlp.bias"
    assert values(found)["optimizer.param_groups.0.params.2"] == 2


def test_without_names_and_with_other_shapes_nothing_is_guessed() -> None:
    value = {"model": {"a": T((2, 2)), "b": T((2, 2)), "c": T((2, 2))}, "optimizer": adam([(2, 2), (2, 2)])}
    swapped = {"a": [Output("a", Applied(Transpose(), (Leaf("a"),)))]}
    with pytest.raises(MigrationError, match="records no names for its 2 parameters"):
        planned(value, swapped)
    renamed = planned(value, {"a": "z"})
    assert keys(renamed)[0] == "model.z"
    kept = planned(value, swapped, wishes=Wishes(sections=("weights",)))
    assert tensors(kept)["optimizer.state.0.exp_avg"].shape == (2, 2)


def test_two_groups_are_matched_only_where_shapes_tell_and_by_order_where_that_is_asked_for() -> None:
    weights = {"a": T((2, 2)), "b": T((2, 2))}
    value = {"model": weights, "optimizer": adam([(2, 2), (2, 2)], [[0], [1]])}
    turned = {
        "b": [
            Output("b", Applied(Split(sections=2), (Leaf("b"),), 0)),
            Output("c", Applied(Split(sections=2), (Leaf("b"),), 1)),
        ]
    }
    one_each = planned(value, turned)
    assert [values(one_each)[f"optimizer.param_groups.{g}.params.{i}"] for g, i in ((0, 0), (1, 0), (1, 1))] == [
        0,
        1,
        2,
    ]
    weights = {**weights, "x": T((2, 2))}
    value = {"model": weights, "optimizer": adam([(2, 2)] * 3, [[0, 1], [2]])}
    with pytest.raises(MigrationError, match="--assume-order"):
        planned(value, turned)
    found = planned(value, turned, wishes=Wishes(assume_order=True))
    assert any("--assume-order" in note for note in found.notes)


def test_frozen_parameters_stay_out() -> None:
    weights = {"a": T((2, 3)), "b": T((4, 5)), "c": T((6, 7))}
    value = {"model": weights, "optimizer": adam([(2, 3), (6, 7)])}
    found = planned(value, {"b": split("b", ["b1", "b2"]), "c": [Output("c", Applied(Transpose(), (Leaf("c"),)))]})
    assert tensors(found)["optimizer.state.1.exp_avg"].shape == (7, 6)
    assert not any(key.startswith("optimizer.state.2") for key in keys(found))
    with pytest.raises(MigrationError, match="1 trained and 1 frozen"):
        planned(
            {"model": {"a": T((2, 3)), "b": T((4, 3))}, "optimizer": adam([(2, 3)])},
            {"a": [merged("ab", "ab")], "b": []},
        )


def test_factored_state_survives_a_rename_and_no_split() -> None:
    weights = {"a": T((4, 6)), "b": T((5, 7))}
    state = {
        i: {"step": T(()), "row_var": T((*t.shape[:-1], 1)), "col_var": T((1, t.shape[-1]))}
        for i, t in enumerate(weights.values())
    }
    value = {
        "model": weights,
        "optimizer": {"state": state, "param_groups": [{"lr": 1, "beta2_decay": -0.8, "params": [0, 1]}]},
    }
    renamed = planned(value, {"a": "z"})
    assert renamed.lossless
    assert "optimizer.state.0.row_var" in keys(renamed)
    found = planned(value, {"a": split("a", ["x", "y"])})
    assert "optimizer.state.0.row_var" not in keys(found)
    assert "optimizer.state.2.row_var" in keys(found)
    assert any("'row_var' cannot follow through split" in step.lossy for step in found.steps)


def test_dicts_keyed_by_the_weights_names_follow() -> None:
    value = training(notes={"fc.weight": 0.5, "fc.bias": 0.25}, names={"fc.weight": 1, "else": 2})
    found = planned(value, {"fc.weight": "mlp.weight"})
    assert values(found)["notes.mlp.weight"] == 0.5
    assert values(found)["names.fc.weight"] == 1


def test_a_cast_parameter_keeps_its_moments_and_the_plan_does_not_say_otherwise() -> None:
    cast = Output("fc.weight", Applied(Cast(DTYPES["bfloat16"]), (Leaf("fc.weight"),)))
    found = planned(training(), {"fc.weight": [cast]}, drop=["head.weight"])
    assert tensors(found)["model.fc.weight"].dtype.name == "bfloat16"
    assert {tensors(found)[f"optimizer.state.1.{name}"].dtype.name for name in ("exp_avg", "exp_avg_sq")} == {"float32"}
    assert [(step.op, step.new) for step in found.steps if step.op == "cast"] == [("cast", ("model.fc.weight",))]
