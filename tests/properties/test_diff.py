"""The laws of diff: nothing differs from itself, both directions agree, every known edit is found and no other."""

from __future__ import annotations

import io
import json
import math
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from ckpttool.changes import Tolerance
from ckpttool.errors import ExitCode, UsageError
from ckpttool.measure.difference import differences
from ckpttool.memory import describe_state
from ckpttool.report import Report
from ckpttool.testing import strategies
from ckpttool.testing.strategies.edits import WEIGHTS, Edit
from ckpttool.verbs.diff import diff

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
NUMBERS = ("changed", "numel", "max_abs", "mean_abs", "max_rel", "rms", "cosine", "max_ulp")


def changes(report: Report) -> list[dict[str, Any]]:
    """The changes of a report, as a script gets them."""
    found: list[dict[str, Any]] = json.loads(json.dumps(report.json["changes"]))
    return found


def facts(report: Report) -> list[tuple[Any, ...]]:
    """What does not depend on where the bytes lay: kinds, keys and numbers, in no order."""
    return sorted(
        (change["kinds"], change["key"], change["old_key"] or "", repr(change["stats"])) for change in changes(report)
    )


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of this example's own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def save(value: Any, path: Path, *, legacy: bool = False) -> Path:
    """Written by torch, warnings about experimental types aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def bits(tensor: Any) -> Any:
    """Its elements as rows of bytes, in row-major order, views spelled out."""
    flat = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), flat.element_size())


def rebuilt(data: Any, like: Any) -> Any:
    """The tensor of another's shape and type that has these bytes."""
    return data.reshape(-1).view(like.dtype).reshape(like.shape)


# --- identity --------------------------------------------------------------------------------------------------


@given(strategies.trees() | strategies.state_dicts() | strategies.checkpoints())
def test_nothing_differs_from_itself(value: Any) -> None:
    with folder() as here:
        path = save(value, here / "a.pt")
        for a, b in ((path, path), (value, value), (path, value), (value, path)):
            report = diff(a, b)
            assert changes(report) == []
            assert report.json["identical"] is True
            assert report.exit_code == ExitCode.OK


@given(strategies.trees(elements=strategies.dtypes(strategies.TYPED)))
def test_the_format_is_no_difference(value: Any) -> None:
    with folder() as here:
        new, old = save(value, here / "new.pt"), save(value, here / "old.pt", legacy=True)
        assert changes(diff(old, new)) == []


@given(strategies.edits())
def test_safetensors_hold_the_same_tensors(edit: Edit) -> None:
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    before, after = edit.before[WEIGHTS], edit.after[WEIGHTS]
    with folder() as here:
        paths = [here / "a.safetensors", here / "b.safetensors"]
        for weights, path in zip((before, after), paths, strict=True):
            # The library writes neither ties nor views.
            library.save_file({key: value.clone().contiguous() for key, value in weights.items()}, path)
        # The format keeps no order and no ties.
        wanted = {"reordered", "retied"}
        ours = [fact for fact in facts(diff(*paths)) if not wanted & set(fact[0])]
        assert ours == [fact for fact in facts(diff(before, after)) if not wanted & set(fact[0])]


# --- symmetry --------------------------------------------------------------------------------------------------

MIRRORED = {"added": "removed", "removed": "added"}


def mirrored(change: dict[str, Any]) -> tuple[Any, ...]:
    """A change as the other direction should have it."""
    kinds = {MIRRORED.get(kind, kind) for kind in change["kinds"]}
    renamed = change["old_key"] is not None and change["old_key"] != change["key"]
    keys = (change["old_key"], change["key"]) if renamed else (change["key"], None)
    return (sorted(kinds), *keys, numbers(change))


def seen(change: dict[str, Any]) -> tuple[Any, ...]:
    return (sorted(change["kinds"]), change["key"], change["old_key"], numbers(change))


def numbers(change: dict[str, Any]) -> list[Any]:
    """Rounded: sums in another order differ in their last digits."""
    stats = change["stats"] or {}
    found = [stats.get(name) for name in NUMBERS]
    return [float(f"{value:.9g}") if isinstance(value, float) else value for value in found]


UNRELATED = st.tuples(strategies.state_dicts(), strategies.state_dicts()).map(lambda pair: Edit(*pair, ()))


@given(strategies.edits() | UNRELATED)
def test_both_directions_agree(edit: Edit) -> None:
    forth, back = diff(edit.before, edit.after), diff(edit.after, edit.before)
    assert sorted(map(repr, map(mirrored, changes(forth)))) == sorted(map(repr, map(seen, changes(back))))
    assert forth.exit_code == back.exit_code


# --- edits -----------------------------------------------------------------------------------------------------


@given(strategies.edits())
def test_known_edits_are_found_and_no_others(edit: Edit) -> None:
    found = [(c["kind"], c["key"], c["old_key"]) for c in changes(diff(edit.before, edit.after))]
    # Which of two tied, or of two in another order, is named is a matter of taste.
    loose = {"retied", "reordered"}
    assert sorted(map(str, (f for f in found if f[0] not in loose))) == sorted(
        map(str, (c for c in edit.changes if c[0] not in loose))
    )
    assert {f[0] for f in found} & loose == {c[0] for c in edit.changes} & loose


@given(strategies.edits())
def test_counts_and_exit_code_follow_from_the_changes(edit: Edit) -> None:
    report = diff(edit.before, edit.after)
    found = changes(report)
    summary = report.json["summary"]
    assert isinstance(summary, dict)
    for kind in {c["kind"] for c in found}:
        assert summary[kind] == sum(c["kind"] == kind for c in found)
    assert report.exit_code == (ExitCode.FINDINGS if edit.changes else ExitCode.OK)
    assert report.json["identical"] is (not edit.changes)


@given(strategies.states(), st.data())
def test_strides_are_no_difference(state: dict[str, Any], data: st.DataObject) -> None:
    weights = state[WEIGHTS]
    key = data.draw(st.sampled_from(list(weights)))
    turned = OrderedDict(weights)
    turned[key] = weights[key].t().contiguous().t()
    assert changes(diff(state, {**state, WEIGHTS: turned})) == []


# --- agreement with a naive comparison -------------------------------------------------------------------------


@st.composite
def pairs(draw: st.DrawFn, *, elements: Any = None) -> tuple[Any, Any]:
    """A state dict and the same with some elements of some tensors overwritten, ties dissolved on both sides."""
    before = OrderedDict(
        (key, rebuilt(bits(tensor), tensor)) for key, tensor in draw(strategies.state_dicts(elements=elements)).items()
    )
    after = OrderedDict(before)
    for key, tensor in before.items():
        rows = bits(tensor)
        if not len(rows) or not draw(st.booleans()):
            continue
        for place in draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=3)):
            mask = 1 if tensor.dtype == torch.bool else draw(st.integers(1, 255))
            rows[place, draw(st.integers(0, rows.shape[1] - 1))] ^= mask
        after[key] = rebuilt(rows, tensor)
    return before, after


def naive(a: Any, b: Any) -> dict[str, tuple[int, int, int]]:
    """Key -> elements that differ in their bits, elements, the first that differs."""
    found = {}
    for key in a:
        unequal = (bits(a[key]) != bits(b[key])).any(1)
        if unequal.any():
            found[key] = (int(unequal.sum()), unequal.numel(), int(unequal.nonzero()[0]))
    return found


def ours(report: Report) -> dict[str, tuple[int, int, int]]:
    return {
        c["key"]: (c["stats"]["changed"], c["stats"]["numel"], c["stats"]["first"])
        for c in changes(report)
        if "rewritten" in c["kinds"]
    }


@given(pairs())
def test_what_differs_is_what_loading_both_shows(pair: tuple[Any, Any]) -> None:
    a, b = pair
    with folder() as here:
        paths = [save(a, here / "a.pt"), save(b, here / "b.pt")]
        loaded = [torch.load(path, weights_only=True) for path in paths]
        report = diff(*paths)
        assert ours(report) == naive(*loaded)
        assert ours(diff(a, b)) == ours(diff(paths[0], b)) == ours(report)


@given(pairs(elements=strategies.dtypes(strategies.TYPED)))
def test_so_it_is_in_the_old_format(pair: tuple[Any, Any]) -> None:
    with folder() as here:
        a, b = save(pair[0], here / "a.pt", legacy=True), save(pair[1], here / "b.pt")
        assert ours(diff(a, b)) == naive(*pair)


@given(pairs(elements=strategies.dtypes(FLOATS)))
def test_numbers_are_what_torch_computes(pair: tuple[Any, Any]) -> None:
    a, b = pair
    for change in changes(diff(a, b)):
        x, y = (side[change["key"]].detach().reshape(-1).to(torch.float64) for side in pair)
        finite = x.isfinite() & y.isfinite()
        x, y = x[finite], y[finite]
        if not len(x):
            continue
        apart, stats = (x - y).abs(), change["stats"]
        assume(math.isfinite(float((apart * apart).sum())) and math.isfinite(float(x @ x) * float(y @ y)))
        assert stats["max_abs"] == pytest.approx(float(apart.max()), rel=1e-6)
        assert stats["mean_abs"] == pytest.approx(float(apart.mean()), rel=1e-6)
        assert stats["rms"] == pytest.approx(float((apart * apart).mean().sqrt()), rel=1e-6)


@given(strategies.dtypes(FLOATS), st.integers(1, 70_000), st.data())
def test_one_unit_in_the_last_place_is_found_anywhere(dtype: Any, numel: int, data: st.DataObject) -> None:
    kind = getattr(torch, dtype.name)
    before = torch.linspace(0.5, 4, numel, dtype=torch.float64).to(kind)
    place = data.draw(st.integers(0, numel - 1))
    after = before.clone()
    after.view(INTEGERS[kind.itemsize])[place] += 1
    (change,) = changes(diff({"w": before}, {"w": after}))
    stats = change["stats"]
    assert (change["kind"], stats["changed"], stats["first"], stats["max_ulp"]) == ("rewritten", 1, place, 1)
    assert diff({"w": before}, {"w": after}, tolerance=Tolerance(ulp=1)).exit_code == ExitCode.OK


# --- independence ----------------------------------------------------------------------------------------------


@given(strategies.edits() | pairs().map(lambda pair: Edit(*pair, ())))
def test_the_executor_changes_nothing(edit: Edit) -> None:
    alone = diff(edit.before, edit.after, jobs=1)
    with ThreadPoolExecutor(3) as pool:
        assert diff(edit.before, edit.after, executor=pool).json == alone.json
    assert diff(edit.before, edit.after, jobs=2).json == alone.json


@given(st.integers(0, 2**31), st.integers(0, 199_999), st.sampled_from([torch.float32, torch.float64]))
def test_how_the_work_is_cut_changes_nothing(seed: int, place: int, other: Any) -> None:
    before = torch.randn(400, 500, generator=torch.Generator().manual_seed(seed))
    after = before.clone()
    after.view(-1)[place] += 1
    a = {"same": before, "turned": before, "slice": before[3:, 1:]}
    b = {"same": after, "turned": after.t().contiguous().t(), "slice": before[3:, 1:].to(other)}
    sides = [describe_state(state, f"side {number}") for number, state in enumerate((a, b))]
    (first, one), (second, two) = sides
    keys = zip(first.tensors(), second.tensors(), strict=True)
    both = [(x[0].index, y[0].index) for x, y in keys]
    whole = differences(first, second, both, sources=[one, two])
    assert [found.changed for found in whole.values()] == [1, 1, 0]
    with ThreadPoolExecutor(3) as pool:
        for unit, window in ((65536, 1), (131072, 2), (1 << 20, 5)):
            parts = differences(first, second, both, sources=[one, two], executor=pool, unit=unit, window=window)
            assert parts == whole


@given(strategies.edits(), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_nothing_but_itself(edit: Edit, random: Any) -> None:
    def shuffled(state: dict[str, Any]) -> dict[str, Any]:
        entries = list(state[WEIGHTS].items())
        random.shuffle(entries)
        return {**state, WEIGHTS: OrderedDict(entries)}

    def without_order(report: Report) -> list[tuple[Any, ...]]:
        return [fact for fact in facts(report) if fact[0] != ["reordered"]]

    straight = without_order(diff(edit.before, edit.after))
    assert without_order(diff(edit.before, shuffled(edit.after))) == straight


# --- optimizers ------------------------------------------------------------------------------------------------


@st.composite
def trained(draw: st.DrawFn) -> tuple[Any, Any, list[int]]:
    """A model, its optimizer after a step with parameters by name, and another order for them."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    model = torch.nn.ParameterDict({f"p{i}": torch.randn(n, 3) for i, n in enumerate(sizes)})
    kind = draw(st.sampled_from(["AdamW", "SGD", "Adagrad"]))
    momentum = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(model.named_parameters(), lr=0.01, **momentum)
    for _ in range(draw(st.integers(1, 2))):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return model, optimizer, draw(st.permutations(range(len(sizes))))


def reordered(state: Any, order: list[int]) -> Any:
    """The same optimizer with its parameters in another order: positions change, names go along."""
    (group,) = state["param_groups"]
    names = [group["param_names"][old] for old in order]
    moments = {new: state["state"][old] for new, old in enumerate(order)}
    return {"state": moments, "param_groups": [{**group, "param_names": names}]}


@given(trained())
def test_parameters_in_another_order_are_not_rewritten(case: tuple[Any, Any, list[int]]) -> None:
    model, optimizer, order = case
    state = optimizer.state_dict()
    a = {"model": model.state_dict(), "optimizer": state}
    b = {"model": model.state_dict(), "optimizer": reordered(state, order)}
    kinds = {kind for change in changes(diff(a, b)) for kind in change["kinds"]}
    assert kinds == (set() if order == sorted(order) else {"reordered"})


@given(trained(), st.data())
def test_a_changed_moment_is_named_by_its_parameter(case: tuple[Any, Any, list[int]], data: Any) -> None:
    model, optimizer, order = case
    state = optimizer.state_dict()
    a = {"model": model.state_dict(), "optimizer": state}
    victim = data.draw(st.sampled_from(order))
    moment = next(name for name, value in state["state"][victim].items() if value is not None and value.dim())
    moments = {**state["state"], victim: {**state["state"][victim]}}
    moments[victim][moment] = moments[victim][moment] + 1
    b = {"model": model.state_dict(), "optimizer": reordered({**state, "state": moments}, order)}
    found = [c for c in changes(diff(a, b)) if "rewritten" in c["kinds"]]
    assert len(found) == 1
    assert f"p{victim}" in found[0]["key"]
    assert moment in found[0]["key"]


# --- the described object --------------------------------------------------------------------------------------


def test_descriptions_with_their_sources_are_compared_too() -> None:
    sides = [describe_state({"w": torch.full((3,), float(n))}, f"side {n}") for n in range(2)]
    (change,) = changes(diff(*sides))
    assert (change["kind"], change["key"], change["stats"]["changed"]) == ("rewritten", "w", 3)


def test_two_sources_of_one_name_are_refused() -> None:
    sides = [describe_state({"w": torch.full((3,), float(n))}, "state") for n in range(2)]
    with pytest.raises(UsageError, match="one name"):
        diff(*sides)


def test_a_module_is_compared_with_its_file(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    (tmp_path / "model.pt").write_bytes(file.getvalue())
    assert changes(diff(tmp_path / "model.pt", module)) == []
    with torch.no_grad():
        module.bias[1] += 1
    (change,) = changes(diff(tmp_path / "model.pt", module))
    assert (change["key"], change["stats"]["first"]) == ("bias", 1)
