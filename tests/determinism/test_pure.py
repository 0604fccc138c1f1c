"""Traces, cuts, comparison and diagnosis: no process, no torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.determinism.comparing import (
    agreement,
    artifact_departure,
    boundary,
    departure,
    differing,
    saves_of,
    unseeded,
    without,
)
from ckpttool.determinism.cuts import choose
from ckpttool.determinism.diagnosis import Case, diagnose
from ckpttool.determinism.reading import TraceError, read_trace
from ckpttool.determinism.trace import SCHEMA, Process, Save, Step
from ckpttool.determinism.traces import compare_traces
from ckpttool.errors import ExitCode, UsageError

NAMES = ("data", "rng.torch", "rng.numpy", "loss", "gradients", "optimizer.exp_avg", "params", "lr", "scheduler")


def run(count: int = 12, **odd: dict[int, str]) -> dict[int, Step]:
    """Steps whose fields name their step, but for those that are given."""
    changed = {name.replace("__", "."): values for name, values in odd.items()}
    return {
        n: Step(n, {name: changed.get(name, {}).get(n, f"{name}@{n}") for name in NAMES}, 1.0 / n)
        for n in range(1, count + 1)
    }


REFERENCE = run()


def from_step(first: int, name: str = "x") -> dict[int, str]:
    return {n: f"{name}{n}" for n in range(first, 13)}


def test_equal_runs_do_not_depart() -> None:
    assert departure(REFERENCE, run()) is None


def test_the_first_step_and_the_first_cause_are_told() -> None:
    found = departure(REFERENCE, run(params=from_step(5), optimizer__exp_avg=from_step(5), loss=from_step(7)))
    assert found is not None
    assert (found.step, found.component, found.loss_step) == (5, "optimizer", 7)
    assert found.fields == ("optimizer.exp_avg", "params")


def test_what_never_shows_in_the_loss_is_found_too() -> None:
    found = departure(REFERENCE, run(scheduler={4: "x"}))
    assert found is not None
    assert (found.step, found.loss_step) == (4, None)


@given(st.integers(1, 12), st.sampled_from(NAMES))
def test_any_single_difference_is_found_where_it_is(step: int, name: str) -> None:
    found = departure(REFERENCE, run(**{name.replace(".", "__"): {step: "other"}}))
    assert found is not None
    assert (found.step, found.fields) == (step, (name,))


def test_a_generator_that_nobody_seeds_is_left_out() -> None:
    other = run(rng__numpy={n: f"z{n}" for n in range(1, 13)})
    loose = unseeded(REFERENCE, other)
    assert loose == {"rng.numpy"}
    assert departure(without(REFERENCE, loose), other) is None
    assert unseeded(REFERENCE, run(data={1: "x"}, rng__numpy={1: "y"})) == frozenset()


def process(base: int, **fields: str) -> Process:
    """A resumed process whose state is right but for the fields that are given; empty text takes one away."""
    right = {n: d for n, d in REFERENCE[base].fields.items() if n in ("params", "optimizer.exp_avg")}
    right |= {n: d for n, d in REFERENCE[base + 1].fields.items() if n in ("lr", "scheduler")}
    right |= {name.replace("__", "."): digest for name, digest in fields.items()}
    return Process(0, base, {}, Step(base, {n: d for n, d in right.items() if d}))


def test_the_boundary_is_compared_with_the_step_that_was_saved() -> None:
    assert boundary(REFERENCE, process(5)) == ()
    assert boundary(REFERENCE, process(5, optimizer__exp_avg="")) == ("optimizer.exp_avg",)
    assert boundary(REFERENCE, process(5, scheduler="x", params="y")) == ("params", "scheduler")


CASES = {
    "optimizer-lost": (process(5, optimizer__exp_avg=""), {"optimizer__exp_avg": from_step(6), "params": from_step(6)}),
    "optimizer-changed": (process(5, optimizer__exp_avg="half"), {"optimizer__exp_avg": from_step(6)}),
    "weights-changed": (process(5, params="bf16"), {"params": from_step(6), "loss": from_step(6)}),
    "schedule": (process(5, scheduler="x"), {"scheduler": from_step(6)}),
    "data-restarted": (process(5), {"data": {6: "data@1", 7: "data@2"}}),
    "data-shifted": (process(5), {"data": {6: "data@8", 7: "data@9"}}),
    "data-changed": (process(5), {"data": from_step(6)}),
    "data-order-rng": (process(5), {"data": from_step(6), "rng__torch": from_step(6)}),
    "rng-reseeded": (process(5), {"rng__torch": {6: "rng.torch@1"}, "loss": from_step(6)}),
    "rng-lost": (process(5), {"rng__torch": from_step(6), "loss": from_step(6)}),
    "hidden-state": (process(5), {"loss": from_step(6), "gradients": from_step(6)}),
    "update": (process(5), {"params": from_step(6)}),
    "schedule-function": (process(5), {"lr": from_step(7)}),
    "unexplained": (process(5), {"scheduler": from_step(7)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_causes_are_named(name: str) -> None:
    resumed, odd = CASES[name]
    branch = run(**odd)
    found = departure(REFERENCE, branch)
    assert found is not None
    cause = diagnose(Case(REFERENCE, branch, resumed, found, boundary(REFERENCE, resumed)))[0]
    assert cause.name == name
    assert cause.message
    assert cause.remedy


def test_agreement_is_by_component() -> None:
    grid = agreement(REFERENCE, run(rng__torch={3: "x"}))
    assert [n for n, same in grid["rng"].items() if not same] == [3]
    assert all(grid["params"].values())


def test_what_is_saved_before_the_first_step_of_a_resume_is_no_checkpoint_of_it() -> None:
    one, two = (Save(5, "a", "d", leaves={"x": digest}) for digest in ("1", "2"))
    late = Save(7, "b", "d", leaves={"x": "3"})
    whole, again = (Process(0, None, saves=(one, late)), Process(0, 5, saves=(two, replace(late, leaves={"x": "4"}))))
    found = artifact_departure(saves_of([whole]), saves_of([whole, again]))
    assert found is not None
    assert (found.step, found.fields) == (7, ("artifact.x",))
    assert artifact_departure(saves_of([whole]), saves_of([whole, again]), ["x"]) is None


# --- cuts ----------------------------------------------------------------------------------------------------


@given(st.integers(2, 60), st.lists(st.integers(1, 60), max_size=8), st.integers(1, 20), st.integers(0, 3))
def test_cuts_lie_where_something_is_to_be_resumed(last: int, saved: list[int], count: int, seed: int) -> None:
    steps, saves = run(last), [Save(n, "", str(n)) for n in saved]
    cuts = choose(steps, saves, count, seed)
    usable = [n for n in saved if 0 < n < last]
    assert len(cuts) <= count
    assert len(set(cuts)) == len(cuts)
    assert all(min(usable) <= cut[0] and max(cut) < last for cut in cuts)
    assert choose(steps, saves, count, seed) == cuts


def test_a_resume_of_a_resume_is_among_the_first() -> None:
    cuts = choose(run(40), [Save(n, "", "") for n in (10, 20, 30)], 4)
    assert any(len(cut) == 2 for cut in cuts)


# --- traces --------------------------------------------------------------------------------------------------


def write(folder: Path, steps: dict[int, Step], schema: str = SCHEMA, tail: str = "") -> Path:
    folder.mkdir()
    lines = [{"kind": "start", "schema": schema, "rank": 0, "environment": {"torch": "2"}}]
    lines += [{"kind": "step", "step": n, "fields": dict(s.fields), "loss": s.loss} for n, s in steps.items()]
    (folder / "r0-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return folder


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    (found,) = read_trace(write(tmp_path / "a", REFERENCE, tail='{"kind": "st'))
    assert {s.number: s for s in found.steps} == REFERENCE


def test_what_is_no_trace_says_so(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no trace here"):
        read_trace(tmp_path)
    with pytest.raises(TraceError, match="version"):
        read_trace(write(tmp_path / "b", REFERENCE, schema="ckpttool.trace/9"))


def test_traces_from_elsewhere_are_compared(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a", REFERENCE), write(tmp_path / "b", run(params=from_step(9)))
    assert compare_traces(one, one).exit_code == ExitCode.OK
    report = compare_traces(one, two)
    assert report.exit_code == ExitCode.FINDINGS
    assert report.json["divergence"]["step"] == 9  # type: ignore[call-overload, index]
    with pytest.raises(UsageError):
        compare_traces(one, tmp_path)


def test_fields_that_the_reference_leaves_out_are_not_compared() -> None:
    step = Step(1, {"loss": "a"})
    assert differing(step, replace(step, fields={"loss": "a", "rng.python": "x"})) == ()
    assert differing(step, replace(step, fields={})) == ("loss",)


def test_when_all_steps_are_taken_pairs_of_them_are() -> None:
    cuts = choose(run(12), [Save(4, "", "")], 25)
    assert len(cuts) == 25
    assert sum(len(cut) == 1 for cut in cuts) < 9 < sum(len(cut) == 2 for cut in cuts)
