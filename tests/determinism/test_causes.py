"""Every cause that a diagnosis can name, each from the smallest traces that show it: no process, no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ckpttool import determinism
from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.diagnosis import Case, diagnose
from ckpttool.determinism.trace import Process, Save, Step

EPOCH, STEPS, BASE = 8, 24, 12
"""Batches of an epoch, steps of the uninterrupted run, and the step that the resume went on from."""


def sample(number: int) -> str:
    return f"{number:08x}"


def step(number: int) -> Step:
    """A step of the uninterrupted run: a batch of two, in another order each epoch."""
    epoch, place = divmod(number - 1, EPOCH)
    first = (place * 3 + epoch) % EPOCH
    return Step(number, {"data": f"data@{number}"}, rows=sample(first) + sample(first + EPOCH))


REFERENCE = {number: step(number) for number in range(1, STEPS + 1)}


def case(
    *odd: str,
    at: int = BASE + 1,
    lost: tuple[str, ...] = (),
    live: Mapping[str, str] | None = None,
    tensors: Mapping[str, str] | None = None,
    leaves: Mapping[str, str] | None = None,
    theirs: Mapping[str, Any] | None = None,
    mine: Mapping[str, Any] | None = None,
    was: Mapping[str, Any] | None = None,
    now: Mapping[str, Any] | None = None,
    state: Mapping[str, str] | None = None,
) -> Case:
    """A branch that departs in the fields ``odd`` at a step, after a load that did not bring back ``lost``.

    ``live`` was saved by name and ``tensors`` came back; ``theirs`` and ``mine`` are the two runs' steps, ``was`` and
    ``now`` their processes.
    """
    reference = {**REFERENCE, at: Step(at, **{"fields": {}, **(theirs or vars_of(REFERENCE[at]))})}
    branch = {at: Step(at, **{"fields": {}, **(mine or {})})}
    loaded = Step(BASE, state if state is not None else dict.fromkeys(lost, "x"), tensors=tensors or {})
    saves = (Save(BASE, "last.pt", "digest", leaves=leaves or {}, live=live or {}),)
    resumed = Process(0, BASE, state=loaded, **(now or {}))
    return Case(
        reference, branch, resumed, Departure(at, odd, at), lost, start=Process(0, None, **(was or {})), saves=saves
    )


def vars_of(one: Step) -> dict[str, Any]:
    return {"fields": one.fields, "rows": one.rows}


def batch_of(number: int) -> dict[str, Any]:
    return {"fields": {"data": f"data@{number}"}}


SWAPPED = {"live": {"a": "1", "b": "2"}, "tensors": {"a": "2", "b": "1"}}


def under(kind: str, found: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    return {side: {f"{kind}.{name}": digest for name, digest in one.items()} for side, one in found.items()}


ROW = REFERENCE[BASE + 1].rows
ELSEWHERE = REFERENCE[BASE + 2].rows
CASES = {
    # what a load brought back
    "untied": case(lost=("params",), live={"params.a": "1"}, tensors={"params.a": "1", "params.b": "1"}),
    "weights-exchanged": case(lost=("params",), **under("params", SWAPPED)),
    "weights-partial": case(
        lost=("params",), live={"params.a": "1", "params.b": "2"}, tensors={"params.a": "1", "params.b": "x"}
    ),
    "weights-changed": case(lost=("params",)),
    "optimizer-lost": case(lost=("optimizer.exp_avg",), state={}),
    "optimizer-settings": case(lost=("optimizer.settings",)),
    "optimizer-permuted": case(lost=("optimizer.exp_avg",), **under("optimizer.exp_avg", SWAPPED)),
    "optimizer-steps": case(lost=("optimizer.step",)),
    "optimizer-changed": case(lost=("optimizer.exp_avg",)),
    "lr-reset": case(lost=("lr",), state={"lr": "x", "scheduler": "right"}),
    "schedule": case(lost=("scheduler",)),
    "buffers-lost": case(lost=("buffers",)),
    "scaler-lost": case(lost=("scaler",)),
    "ema-lost": case(lost=("ema",)),
    "counters-lost": case(lost=("counters",)),
    "state-lost": case(lost=("history",)),
    # batches
    "data-contents": case("data", mine={"fields": {"data": "x", "data.ids": "right"}}),
    "data-restarted": case("data", mine=batch_of(EPOCH + 1)),
    "epoch-cut-short": case("data", mine=batch_of(2 * EPOCH + 1)),
    "epoch-order-repeated": case("data", mine=batch_of(BASE + 1 - EPOCH)),
    "data-shifted": case("data", mine=batch_of(BASE + 3)),
    "batch-size-changed": case("data", mine={"fields": {"data": "x"}, "rows": ROW[:8]}),
    "data-order-changed": case("data", mine={"fields": {"data": "x"}, "rows": ROW[8:] + ROW[:8]}),
    "data-order-rng": case("data", "rng.torch", mine={"fields": {"data": "x"}}),
    "data-changed": case("data", mine={"fields": {"data": "x"}}),
    # generators
    "rng-reseeded": case("rng.torch", state={"rng.torch": "s"}, now={"seeds": ("s",)}),
    "rng-drifts": case("rng.torch", at=BASE + 3),
    "rng-drawn": case("rng.torch", leaves={"rng": "r"}, state={"rng.torch": "drawn"}, now={"restored": ("r",)}),
    "rng-lost": case("rng.torch"),
    # what no state holds
    "training-mode": case(lost=("modules.body",), now={"modules": {"body": "in evaluation mode"}}),
    "module-settings": case(lost=("modules.body",), was={"modules": {"body": "p=0.1"}}),
    "stale-model": case("gradients", theirs={"graded": 4}, mine={"graded": 0}),
    "gradients-lost": case("gradients", "params", theirs={"micro": 4}),
    "environment": case(lost=("environment.threads",)),
    "schedule-function": case("lr", "params"),
    "hidden-state": case("loss", "gradients"),
    "update": case("params"),
    "artifact": case("artifact.model"),
    "unexplained": case("ema"),
}


def named() -> set[str]:
    """The names of causes in the rules' own source."""
    folder = Path(determinism.__file__).parent
    found: set[str] = set()
    for file in ("lost_state.py", "lost_flow.py", "diagnosis.py"):
        for node in ast.walk(ast.parse((folder / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Cause":
                found |= {one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)}
    return found - {"-lost"}  # of `other_state`: each component's name goes before it


@pytest.mark.parametrize("name", CASES)
def test_a_cause_is_named(name: str) -> None:
    cause = diagnose(CASES[name])[0]
    assert cause.name == name, cause.message
    assert cause.message
    assert cause.remedy
    assert cause.component


def test_every_cause_has_a_case() -> None:
    assert named() <= CASES.keys()
    assert len(named()) > 25
