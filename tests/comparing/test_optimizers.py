"""Optimizers by parameter: state follows its parameter wherever it stands, and what differs is named by it."""

from __future__ import annotations

from typing import Any

from ckpttool.changes import Change, Pair, Pairing, Side
from ckpttool.comparing.optimizers import optimizer_changes, pair_states, state_key, state_keys, twins
from ckpttool.comparing.values import Edited
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint
from ckpttool.profiles import lay_out
from ckpttool.testing.trees import T, checkpoint_of

SHAPES = {"a.weight": (4, 3), "b.weight": (4, 3), "c.bias": (5,)}


def training(
    order: tuple[str, ...] = tuple(SHAPES), *, named: bool = True, step: Any = 3, groups: int = 1, **settings: Any
) -> dict[str, Any]:
    """Weights and an Adam state whose parameters stand in this order, in equal groups."""
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, **settings}
    size = -(-len(order) // groups)
    made = []
    for number in range(groups):
        ids = list(range(number * size, min(len(order), (number + 1) * size)))
        names = {"param_names": [order[i] for i in ids]} if named else {}
        made.append({**group, **names, "params": ids})
    state = {
        i: {"step": step, "exp_avg": T(SHAPES[name]), "exp_avg_sq": T(SHAPES[name])} for i, name in enumerate(order)
    }
    weights = {name: T(shape) for name, shape in SHAPES.items()}
    return {"model": weights, "optimizer": {"state": state, "param_groups": made}}


def compared(before: Any, after: Any) -> tuple[list[Change], list[Edited], Pairing]:
    a, b = checkpoint_of(before), checkpoint_of(after)
    layouts = lay_out(a), lay_out(b)
    weights = Pairing(
        tuple(Pair(x, y, "name") for x, y in zip(tensors(a, "model"), tensors(b, "model"), strict=False)), (), ()
    )
    known = twins(*layouts, weights)
    states = pair_states(states_of(a, layouts[0]), states_of(b, layouts[1]), known, layouts[0])
    return (*optimizer_changes(a, b, known), states)


def tensors(checkpoint: Checkpoint, part: str) -> list[Side]:
    return [Side(e.key, e.path, e.index, "weights") for e, _ in checkpoint.tensors() if e.path[0] == part]


def states_of(checkpoint: Checkpoint, layout: Layout) -> list[Side]:
    known = state_keys(layout)
    return [
        Side(state_key(*known[side.index]), side.path, side.index, "optimizer")
        for side in tensors(checkpoint, "optimizer")
    ]


def test_nothing_changed() -> None:
    changes, edits, states = compared(training(), training())
    assert (changes, edits, states.only_a, states.only_b) == ([], [], (), ())


def test_two_parameters_that_changed_order_are_told_and_paired_by_name() -> None:
    changes, edits, states = compared(training(), training(("b.weight", "a.weight", "c.bias")))
    (one,) = changes
    assert (one.kind, one.key, one.facts["parameters"]) == (
        "reordered",
        "optimizer.param_groups",
        ["a.weight", "b.weight"],
    )
    assert one.note.startswith("two parameters changed order: their moments would be swapped")
    assert edits == []
    assert all(p.a.key == p.b.key and p.how == "parameter" for p in states.pairs)
    assert {p.a.path[2] + p.b.path[2] for p in states.pairs} == {"01", "10", "22"}


def test_settings_are_compared_group_by_group() -> None:
    changes, edits, _ = compared(training(), training(lr=0.2))
    assert changes == []
    assert [(".".join(e.path), e.before, e.after) for e in edits] == [("optimizer.param_groups.0.lr", 0.1, 0.2)]


def test_one_step_for_all_is_one_edit() -> None:
    _, edits, _ = compared(training(), training(step=4))
    assert [(".".join(e.path), e.before, e.after, e.several) for e in edits] == [("optimizer.state.*.step", 3, 4, 3)]


def test_parameters_that_come_and_go() -> None:
    _, edits, states = compared(training(), training(("a.weight", "b.weight")))
    assert [(e.op, e.note) for e in edits] == [("removed", "1 parameter removed: c.bias")]
    assert [side.key for side in states.only_a] == [
        "optimizer.state.c.bias.exp_avg",
        "optimizer.state.c.bias.exp_avg_sq",
    ]


def test_other_groups() -> None:
    _, edits, states = compared(training(), training(groups=3))
    assert ("1 groups", "3 groups") in [(e.before, e.after) for e in edits]
    assert {e.note for e in edits if e.note} == {
        "1 parameter moved to another group: b.weight", "1 parameter moved to another group: c.bias"
    }  # fmt: skip
    assert not states.only_a


def test_state_without_names_goes_by_shapes() -> None:
    changes, edits, states = compared(training(named=False), training(named=True))
    assert (changes, edits) == ([], [])
    assert len(states.pairs) == 6
