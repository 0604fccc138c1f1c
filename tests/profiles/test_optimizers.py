"""Which state belongs to which parameter, and which class wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from ckpttool.layout import Optimizer
from ckpttool.profiles import lay_out
from ckpttool.profiles.fingerprints import kind_of
from ckpttool.testing.trees import T, checkpoint_of


def moments(*shapes: tuple[int, ...]) -> dict[int, Any]:
    return {i: {"momentum_buffer": T(shape)} for i, shape in enumerate(shapes)}


def aligned(model: dict[str, T], state: dict[Any, Any], *groups: dict[str, Any]) -> Optimizer:
    value = {"model": model, "optimizer": {"state": state, "param_groups": list(groups)}}
    return lay_out(checkpoint_of(value)).optimizers[0]


def names(optimizer: Optimizer) -> list[str | None]:
    return [slot.name for slot in optimizer.slots]


def test_one_group_follows_the_model() -> None:
    model = {"a.weight": T((4, 3)), "bn.running_var": T((4,)), "a.bias": T((4,))}
    found = aligned(model, moments((4, 3), (4,)), {"params": [0, 1]})
    assert (found.named, names(found)) == ("shapes", ["a.weight", "a.bias"])
    assert all(slot.parameter is not None and slot.confidence == "inferred" for slot in found.slots)


def test_groups_split_by_decay_are_merged_along_the_model() -> None:
    model = {"a.weight": T((4, 3)), "a.bias": T((4,)), "b.weight": T((5, 4)), "b.bias": T((5,))}
    state = moments((4, 3), (5, 4), (4,), (5,))
    found = aligned(model, state, {"params": [0, 1]}, {"params": [2, 3]})
    assert (found.named, names(found)) == ("shapes", ["a.weight", "b.weight", "a.bias", "b.bias"])


def test_groups_that_could_take_either_parameter_are_left_alone() -> None:
    model = {"a.bias": T((4,)), "b.bias": T((4,))}
    found = aligned(model, moments((4,), (4,)), {"params": [0]}, {"params": [1]})
    # One group for each parameter is the model's order; two groups of two are anybody's guess.
    assert found.named == "shapes"
    model |= {"c.bias": T((4,)), "d.bias": T((4,))}
    found = aligned(model, moments((4,), (4,), (4,), (4,)), {"params": [0, 1]}, {"params": [2, 3]})
    assert (found.named, names(found)) == ("none", [None] * 4)


def test_frozen_layers_are_skipped_where_only_one_way_fits() -> None:
    model = {"frozen": T((9, 9)), "a.weight": T((4, 3)), "a.bias": T((4,))}
    assert names(aligned(model, moments((4, 3), (4,)), {"params": [0, 1]})) == ["a.weight", "a.bias"]
    twice = {"a": T((4,)), "b": T((4,)), "c": T((4,))}
    assert aligned(twice, moments((4,), (4,)), {"params": [0, 1]}).named == "none"


def test_names_in_the_file_are_believed_and_looked_up_through_wrappers() -> None:
    model = {"module.a.weight": T((4, 3))}
    found = aligned(model, moments((4, 3)), {"params": [0], "param_names": ["a.weight"]})
    assert (found.named, found.slots[0].confidence) == ("param_names", "confirmed")
    assert found.slots[0].parameter is not None
    keyed = aligned(model, {"module.a.weight": {"exp_avg": T((4, 3))}}, {"params": ["module.a.weight"]})
    assert (keyed.named, names(keyed)) == ("fqn", ["module.a.weight"])


def test_states_that_no_group_lists_and_ids_without_state() -> None:
    found = aligned({"a": T((4,)), "b": T((5,))}, moments((4,)) | {7: {"momentum_buffer": T()}}, {"params": [0, 1]})
    assert (found.orphans, found.stateless) == (("7",), ("1",))


@pytest.mark.parametrize(
    ("state", "shape"),
    [
        ({"row_var": T((4, 1)), "col_var": T((1, 3))}, (4, 3)),
        ({"exp_avg_sq_row": T((4,)), "exp_avg_sq_col": T((3,))}, (4, 3)),
        ({"exp_avg": T(())}, ()),
        ({"exp_avg": T((2, 3)), "projector": {"rank": 2}}, None),
        ({"strange": T((4, 3)), "step": T(())}, (4, 3)),
        ({"strange": T((4, 3)), "other": T((2,))}, None),
    ],
)
def test_what_moments_say_of_their_parameter_s_shape(state: dict[str, Any], shape: tuple[int, ...] | None) -> None:
    found = aligned({"a": T((4, 3))}, {0: state}, {"params": [0]})
    assert found.slots[0].shape == shape


def test_adam_of_older_torch_cannot_be_told_from_adamw() -> None:
    assert kind_of({"betas": "…", "amsgrad": False}, {"exp_avg"}) == "Adam/AdamW"
    assert kind_of({"strange": 1}, set()) == "unknown"


def test_every_optimizer_of_torch_is_known_by_name(torch: Any) -> None:
    optim = torch.optim
    kinds = [
        k for k in vars(optim).values()
        if isinstance(k, type) and issubclass(k, optim.Optimizer) and k is not optim.Optimizer
    ]  # fmt: skip
    assert len(kinds) >= 13
    for kind in kinds:
        for stepped in (False, True):
            state = real_state(torch, kind, stepped)
            group = {
                k: v if isinstance(v, (int, float, bool, str)) else "…" for k, v in state["param_groups"][0].items()
            }
            found = kind_of(group, {name for slot in state["state"].values() for name in slot})
            assert kind.__name__ in found.split("/"), (kind, stepped, found)


def real_state(torch: Any, kind: Any, stepped: bool) -> dict[str, Any]:
    """The state dict of one optimizer, before or after its first step."""
    weight = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = kind([weight], lr=0.1)
    weight.grad = torch.ones(4, 3).to_sparse() if kind.__name__ == "SparseAdam" else torch.ones(4, 3)
    if stepped:
        optimizer.step(lambda: torch.tensor(1.0))
    state: dict[str, Any] = optimizer.state_dict()
    return state
