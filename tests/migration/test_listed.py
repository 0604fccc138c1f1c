"""Averages and fp32 copies that are kept in lists without names: they move with the parameters, or nothing does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.errors import CkpttoolError
from ckpttool.expressions import Applied, Form, Leaf
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.reach import Wishes
from ckpttool.model import Tensor
from ckpttool.ops import Cast, Fill, Transpose
from ckpttool.plan import Plan
from ckpttool.profiles.parameters import is_buffer
from ckpttool.rewriting import Output
from ckpttool.testing import plans
from ckpttool.testing.plans import adam, keys, merged, rewriting_of, split, tensors, turned
from ckpttool.testing.trees import T

WEIGHTS = {"a.weight": T((6, 4)), "n.running_mean": T((5,)), "b.weight": T((3, 6)), "b.bias": T((3,))}
SHAPES = [(6, 4), (3, 6), (3,)]


def planned(value: Any, changes: dict[str, Any], **more: Any) -> Plan:
    return plans.planned(value, changes, trains=lambda name, tensor: not is_buffer(name, tensor), **more)


def shadow(shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    """What torch_ema's state_dict holds."""
    return {"decay": 0.9, "num_updates": 3, "shadow_params": [T(shape) for shape in shapes], "collected_params": None}


def shapes_at(found: dict[str, Tensor], key: str) -> list[tuple[int, ...]]:
    return [tensor.shape for name, tensor in found.items() if name.startswith(f"{key}.")]


@pytest.mark.parametrize("place", ["ema", "extra"])
def test_an_average_without_names_follows_in_the_new_order(place: str) -> None:
    value = {"model": WEIGHTS, place: shadow(SHAPES)}
    found = planned(value, {"a.weight": split("a.weight", ["p.weight", "q.weight"]), **turned("b.weight")})
    assert shapes_at(tensors(found), f"{place}.shadow_params") == [(3, 4), (3, 4), (6, 3), (3,)]
    assert not any("left as it is" in note for note in found.notes)
    together = planned(
        {"model": {"q": T((2, 4)), "x": T((7,)), "k": T((3, 4))}, place: shadow([(2, 4), (7,), (3, 4)])},
        {"q": [merged("qk", ["q", "k"])], "k": []},
    )
    assert shapes_at(tensors(together), f"{place}.shadow_params") == [(5, 4), (7,)]


def test_of_new_parameters_the_average_is_what_they_are_themselves_and_of_dropped_ones_none() -> None:
    new = Output("c.bias", Applied(Fill((7,), DTYPES["float32"], 0), ()))
    value = {"model": WEIGHTS, "ema": shadow(SHAPES)}
    found = planned(value, {"b.bias": [Output("b.bias", Leaf("b.bias")), new]}, drop=["a.weight"])
    known = tensors(found)
    assert shapes_at(known, "ema.shadow_params") == [(3, 6), (3,), (7,)]
    assert known["ema.shadow_params.2"].storage != known["model.c.bias"].storage


def test_an_average_of_the_trained_ones_alone_follows_too() -> None:
    value = {"model": WEIGHTS, "optimizer": adam(SHAPES[1:]), "ema": shadow(SHAPES[1:])}
    found = planned(value, turned("b.weight"))
    assert shapes_at(tensors(found), "ema.shadow_params") == [(6, 3), (3,)]


@pytest.mark.parametrize("shapes", [[(3, 6), (6, 4), (3,)], SHAPES[:2]])
def test_an_average_that_fits_nothing_stops_what_would_leave_it_wrong(shapes: Any) -> None:
    value = {"model": WEIGHTS, "ema": shadow(shapes)}
    with pytest.raises(MigrationError, match=r"ema\.shadow_params – holds \d tensors without names"):
        planned(value, turned("b.weight"))
    assert "model.c" in keys(planned(value, {"b.bias": "c"}))
    kept = planned(value, turned("b.weight"), wishes=Wishes(sections=("weights",)))
    assert shapes_at(tensors(kept), "ema.shadow_params") == list(shapes)


def test_sorted_keys_prove_no_order() -> None:
    from ckpttool.migration.planning import plan
    from ckpttool.profiles import lay_out
    from ckpttool.testing.trees import checkpoint_of

    value = {"model.safetensors": WEIGHTS, "ema": shadow(SHAPES), "optimizer.pt": adam(SHAPES)}
    checkpoint = checkpoint_of(value)
    layout = lay_out(checkpoint)
    assert not layout.ordered
    for section in ("ema", "optimizer"):
        with pytest.raises(MigrationError, match=r"without names|records no names"):
            plan(
                checkpoint,
                layout,
                lambda names: rewriting_of(names, turned("b.weight")),
                wishes=Wishes(sections=(section,), assume_order=True),
                trains=lambda name, tensor: not is_buffer(name, tensor),
            )


def halves() -> dict[str, T]:
    return {name: T(t.shape, "bfloat16") for name, t in WEIGHTS.items()}


def test_fp32_copies_of_a_wrapped_optimizer_follow_its_groups_in_their_own_type() -> None:
    inner = adam([(6, 4), (3, 6), (3,)], [[0, 1], [2]])
    wrapped = {"optimizer": inner, "fp32_from_fp16_params": [[T((6, 4)), T((3, 6))], [T((3,))]]}
    value = {"model": halves(), "optimizer": wrapped}
    changes = {
        "a.weight": split("a.weight", ["p", "q"]),
        "b.weight": [
            Output("b.weight", Applied(Cast(DTYPES["float16"]), (Applied(Transpose(), (Leaf("b.weight"),)),)))
        ],
    }
    known = tensors(planned(value, changes))
    assert shapes_at(known, "optimizer.fp32_from_fp16_params.0") == [(3, 4), (3, 4), (6, 3)]
    assert shapes_at(known, "optimizer.fp32_from_fp16_params.1") == [(3,)]
    assert known["optimizer.fp32_from_fp16_params.0.2"].dtype.name == "float32"
    new = Output("c", Applied(Fill((7,), DTYPES["bfloat16"], 0), ()))
    added = tensors(planned(value, {"b.bias": [Output("b.bias", Leaf("b.bias")), new]}))
    last = added["optimizer.fp32_from_fp16_params.1.1"]
    assert Form(last.dtype, last.shape) == Form(DTYPES["float32"], (7,))


def test_vectors_over_many_parameters_stop_what_would_leave_them_wrong() -> None:
    value = {"model": halves(), "optimizer": {"optimizer": adam(SHAPES), "fp32_groups_flat": [T((45,))]}}
    with pytest.raises(MigrationError, match="fp32_groups_flat"):
        planned(value, turned("b.weight"))
    assert "model.c" in keys(planned(value, {"b.bias": "c"}))


def test_an_average_of_torch_kept_as_a_list_trains_on(tmp_path: Path) -> None:
    torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")
    from ckpttool.verbs.migrate import migrate

    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3))
    average = [parameter.detach() * 2 for parameter in model.parameters()]
    torch.save({"model": model.state_dict(), "ema": {"shadow_params": average}}, tmp_path / "a.pt")
    (tmp_path / "rules.yaml").write_text(
        'ckpttool: 1\nrules:\n- transpose: "2.weight"\n- split: "0.weight"\n  into: ["q", "k"]\n  dim: 0\n'
    )
    migrate(tmp_path / "a.pt", tmp_path / "b.pt", rules=tmp_path / "rules.yaml")
    state = torch.load(tmp_path / "b.pt", weights_only=True)
    parameters = [t for name, t in state["model"].items() if "running" not in name and "num_" not in name]
    assert all(torch.equal(a, 2 * b) for a, b in zip(state["ema"]["shadow_params"], parameters, strict=True))
    del average[0]
    torch.save({"model": model.state_dict(), "ema": {"shadow_params": average}}, tmp_path / "c.pt")
    with pytest.raises(CkpttoolError, match="shadow_params"):
        migrate(tmp_path / "c.pt", tmp_path / "d.pt", rules=tmp_path / "rules.yaml")
